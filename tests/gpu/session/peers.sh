#!/bin/bash
# Us beside what PyTorch has for the same work, one table, two GPUs, at most 150 s: launch/bench-peers of the archive.
# GPUS=4 takes more; CPU=1 tries it without a GPU, ours alone. Table: $OUT/peers.txt; JSON: $OUT/peers.json; raw: $OUT/peers/.
. "$(dirname "$0")/common.sh"

gpus=${GPUS:-2}
script=$work/launch/bench-peers
arguments=(--shapes 1024:32:8 2048:32:8 4096:32:8 8192:32:8 16384:32:8 --check none --budget 140)
if [ "$cpu" = 1 ]; then
  script=$repo/launch/bench-peers
  arguments=(--shapes 128:4:2 256:4:2 --head-dim 16 --backend cpu --peers --repeats 2 --budget 60)
fi
step "bench-peers" 150 bash -c 'python3 "$@" | tee "$0"; exit "${PIPESTATUS[0]}"' "$out/peers.txt" "$script" --ranks "$gpus" \
  --annulus "$work/annulus" --together "${arguments[@]}" --out "$out/peers" --json "$out/peers.json"
cat "$out/peers.txt" >>"$out/summary.txt"
finish
