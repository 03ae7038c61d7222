#!/bin/bash
# Builds the fuzz targets of the file readers with clang's libFuzzer, ASan and UBSan, and runs each.
#   run.sh SOURCE_DIR WORK_DIR [SECONDS]
# Exit 77: clang or its libFuzzer is missing. What crashed a target stays in WORK_DIR.
set -uo pipefail
source=$1 work=$2 seconds=${3:-5}
mkdir -p "$work" && cd "$work" || exit 1

clang=
for name in clang++ clang++-19 clang++-16 clang++-14; do
  command -v "$name" >/dev/null && clang=$name && break
done
[ -n "$clang" ] || { echo "skipped: clang++ is not installed (apt-get install clang)"; exit 77; }
echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' >probe.cpp
if ! "$clang" -fsanitize=fuzzer,address probe.cpp -o probe 2>probe.err; then
  echo "skipped: $clang has no libFuzzer: $(head -1 probe.err)"
  exit 77
fi
command -v ccache >/dev/null && clang="ccache $clang"

flags="-std=c++20 -O1 -gline-tables-only -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
  -I$source -I$source/runtime/include -DFMT_HEADER_ONLY"
# Two at a time: most of this test is compiling.
files=()
objects=()
for file in launch/options/{command_line,config_file,environment,grid,keys,layers,model,settings,value}.cpp \
  launch/io/{npy,safetensors,tensor_file}.cpp runtime/base/tensor.cpp; do
  files+=("$file")
  objects+=("${file//\//_}.o")
done
export clang flags source
# shellcheck disable=SC2016
printf '%s\n' "${files[@]}" |
  xargs -P 2 -I{} bash -c '$clang $flags -c "$source/$1" -o "${1//\//_}.o"' compile {} || exit 1

# Seeds: what the repository holds, and one small tensor file of each kind.
mkdir -p seeds/{config,model,npy,safetensors}
cp "$source"/configs/*.cfg seeds/config
cp "$source"/configs/models/*.json seeds/model
printf "\x93NUMPY\x01\x00\x47\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }           \n" >seeds/npy/v1
head -c 24 /dev/zero >>seeds/npy/v1
entry='{"q":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
printf '\x36\x00\x00\x00\x00\x00\x00\x00%s12345678' "$entry" >seeds/safetensors/one
printf '"descr"\n"<f2"\n"fortran_order"\n"True"\n"False"\n"shape"\n"BF16"\n"data_offsets"\n"__metadata__"\n' >words
printf '"[problem]"\n"[run]"\n"seq = "\n"documents = "\n"softcap = off"\n' >>words

failures=0
for target in config model npy safetensors; do
  # shellcheck disable=SC2086
  $clang $flags -fsanitize=fuzzer "$source/tests/fuzz/fuzz_$target.cpp" "${objects[@]}" \
    -lboost_program_options -o "fuzz_$target" || exit 1
  mkdir -p "corpus/$target"
  if "./fuzz_$target" -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=1024 -dict=words \
    -artifact_prefix="$target-" "corpus/$target" "seeds/$target" >"$target.log" 2>&1; then
    echo "$target: $(grep -E '^Done' "$target.log")"
  else
    echo "FAILED: $target: $(grep -m1 -E 'ERROR|SUMMARY|runtime error' "$target.log"); see $work/$target.log"
    failures=$((failures + 1))
  fi
done
exit $((failures > 0))
