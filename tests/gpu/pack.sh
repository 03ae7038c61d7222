#!/bin/bash
# Packs what a machine with GPUs needs, and this one builds, into .gpu/ (git ignores it):
#   tests/gpu/pack.sh                 in build-gpu/; BUILD=DIR takes another build tree
#   tests/gpu/pack.sh --list          what would be packed
# There: tests/gpu/session/one.sh, two.sh and four.sh unpack .gpu/gpu.tar.xz and run it. That machine
# needs a driver and Open MPI 4; NCCL and CUPTI where they are to be used. It needs none of Boost,
# Highway, spdlog and fmt: their shared objects are packed beside the binaries, which look there first
# (run path $ORIGIN). Binaries are stripped; lines of device code stay, for profilers.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build-gpu} out=.gpu most_mib=60
# What the session's scripts start, and the library that Python opens.
programs=(bin/annulus tests/engine_gpu tests/engine_gpu_mpi tests/engine_local tests/engine_mpi
  tests/engine_nccl tests/kernels_gpu tests/hopper_variants_gpu tests/hopper_backward_variants_gpu
  tests/counters_gpu tests/survey_gpu tests/peer_gpu tests/trace_mpi tests/moe_gpu
  tests/moe_engine_gpu tests/moe_engine_gpu_mpi tests/count_gpus)
targets=(annulus_command annulus_package engine_gpu engine_gpu_mpi engine_local engine_mpi engine_nccl kernels_gpu
  hopper_variants_gpu hopper_backward_variants_gpu counters_gpu survey_gpu peer_gpu trace_mpi moe_gpu
  moe_engine_gpu moe_engine_gpu_mpi count_gpus)
carried='lib(boost_program_options|hwy|spdlog|fmt)\.so'

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${programs[@]}" lib/libannulus.so
  exit
fi

say() { printf '== %s\n' "$*"; }

say "build: $build, every kernel"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DANNULUS_WITH_CUDA=ON -DANNULUS_WITH_MPI=ON \
  -DANNULUS_KERNEL_SET=full '-DCMAKE_BUILD_RPATH=$ORIGIN' >"/tmp/annulus-pack-$$.log" || {
  cat "/tmp/annulus-pack-$$.log" >&2
  exit 1
}
rm -f "/tmp/annulus-pack-$$.log"
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "${targets[@]}"

say "pack: $out/gpu.tar.xz"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
for program in "${programs[@]}"; do cp "$build/$program" "$stage/"; done
cp "$(readlink -f "$build/lib/libannulus.so")" "$stage/libannulus.so"
ldd "$stage"/* 2>/dev/null | grep -oE "${carried}[^ ]* => [^ ]+" | sed 's/.*=> //' | sort -u |
  while read -r object; do cp -L "$object" "$stage/"; done
strip --strip-unneeded "$stage"/*
cp tests/bench/{annulus_torch,fa3_peer,interleave,distributed}.py "$stage/"
# What launch/bench-peers is and reads, as it lies in a checkout; it finds annulus on $PATH.
for file in launch/bench-peers launch/peers/*.py tests/bench/peers.py configs/grids/peers.cfg; do
  install -D -m 755 "$file" "$stage/$file"
done
git rev-parse HEAD >"$stage/commit"
[ -z "$(git status --porcelain --untracked-files=no)" ] || echo "and changes" >>"$stage/commit"

# One stream with a window over all binaries: they hold the same kernels.
mkdir -p "$out"
tar -C "$stage" -cf - . | xz -T1 --lzma2=preset=1,dict=256MiB >"$out/gpu.tar.xz"

say "check"
for file in "$stage"/*; do
  [ -f "$file" ] || continue
  missing=$(ldd "$file" 2>/dev/null | grep 'not found' || true)
  [ -z "$missing" ] || { echo "$file: $missing" >&2; exit 1; }
done
mib=$((($(du -sk "$out" | cut -f1) + 1023) / 1024))
ls "$stage"
echo "$mib MiB in $out, $((($(du -sk "$stage" | cut -f1) + 1023) / 1024)) MiB unpacked"
[ "$mib" -le "$most_mib" ] || { echo "more than $most_mib MiB" >&2; exit 1; }
