#!/bin/bash
# What `cmake --install` puts down is all that an outside project needs: README's example builds
# against it by CMake and by pkg-config, from a tree that was moved, and runs on four ranks.
#   package_test.sh BUILD_DIR SOURCE_DIR MPIRUN
set -uo pipefail
build=$1 source=$2 mpirun=$3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAILED: $*"
  exit 1
}

# step NAME COMMAND...: quiet unless it fails.
step() {
  local name=$1
  shift
  "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "$name"; }
  echo "$name: passes"
}

runs_example() {
  "$mpirun" -np 4 --bind-to none "$1" >"$scratch/log" 2>&1 || return 1
  grep -Eq 'exact masked +group +FLOP' "$scratch/log" && ! grep -q nan "$scratch/log"
}

step "install" cmake --install "$build" --prefix "$scratch/first"
mv "$scratch/first" "$scratch/moved"  # nothing may remember where it was put
root=$scratch/moved
library=$(find "$root" -name 'libannulus.so') || true
[ -n "$library" ] || fail "no libannulus.so"

for file in bin/annulus bin/annulus-run bin/annulus-slurm include/annulus/annulus.h \
  include/annulus/annulus_c.h share/annulus/configs/quickstart.cfg \
  share/annulus/configs/models/llama3_8b.json share/doc/annulus/LICENSE; do
  [ -s "$root/$file" ] || fail "$file is not installed"
done
[ "$(find "$root/include" -type f | wc -l)" -eq "$(find "$source/runtime/include" -type f | wc -l)" ] ||
  fail "other headers than the public ones are installed"
step "the installed command prices an installed configuration" "$root/bin/annulus" cost --config \
  "$root/share/annulus/configs/llama3_8b_1n8g.cfg"
step "the installed launcher finds the installed command" "$root/bin/annulus-run" -n 2 -- bench --seq 80
grep -qF "$root/bin/annulus bench" "$scratch/log" || fail "annulus-run started another command"

# Symbols: ours alone, and of ours only what headers declare.
nm -D --defined-only "$library" | awk '{print $3}' >"$scratch/symbols"
grep -qx '_ZN7annulus9AttentionD1Ev' "$scratch/symbols" || fail "annulus::Attention is not exported"
grep -qx '_ZTIN7annulus7TimeoutE' "$scratch/symbols" || fail "annulus::Timeout cannot be caught outside"
grep -qx 'annulus_attention_forward' "$scratch/symbols" || fail "the C functions are not exported"
foreign=$(grep -vE '^(annulus_|_ZNK?7annulus|_ZT[ISV]N7annulus)' "$scratch/symbols")
[ -z "$foreign" ] || fail "foreign symbols are exported: $foreign"
internal=$(grep -E '7annulus(4comm|4attn|6engine|6detail|4cost|5c_abi|3cpu)' "$scratch/symbols")
[ -z "$internal" ] || fail "internal symbols are exported: $internal"
echo "symbols: $(wc -l <"$scratch/symbols") exported, all ours"
grep -q 'SONAME *libannulus\.so\.[0-9]' <(objdump -p "$library") || fail "no versioned SONAME"

mkdir "$scratch/outside"
cp "$source/tests/package/consumer/CMakeLists.txt" "$scratch/outside"
cp "$source/tests/capi/from_c.c" "$scratch/outside"
cmake -DREADME="$source/README.md" -DOUTPUT="$scratch/outside/example.cpp" \
  -P "$source/tests/docs/extract_example.cmake" || fail "README has no example"
cd "$scratch/outside" || exit 1
step "outside CMake project: configures" cmake -S . -B build -G Ninja -DCMAKE_PREFIX_PATH="$root"
step "outside CMake project: builds" cmake --build build
step "outside CMake project: README's example runs on 4 ranks" runs_example build/example
step "outside CMake project: the C program runs" build/from_c

if command -v pkg-config >/dev/null; then
  PKG_CONFIG_PATH=$(dirname "$library")/pkgconfig
  export PKG_CONFIG_PATH
  # shellcheck disable=SC2046
  step "pkg-config: builds" g++ -std=c++20 -DOMPI_SKIP_MPICXX example.cpp -o by_pc \
    $(pkg-config --cflags --libs annulus ompi) "-Wl,-rpath,$(dirname "$library")"
  step "pkg-config: README's example runs on 4 ranks" runs_example ./by_pc
fi
