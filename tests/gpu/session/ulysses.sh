#!/bin/bash
# Ulysses in slices of heads on four GPUs, some 4 minutes: right results with slices forced and chosen, then
# each size under its ceiling with one slice, those chosen, 2 and 4 even ones, and a trace of the largest.
# Predicted (docs/notes/01): share of the ceiling at 16k a GPU forward 92 to 94 % in one slice (86 % before local
# copies and lse were mended), 95 to 98 % chosen; 8k 85 and 94 %.
. "$(dirname "$0")/common.sh"

slices='Distributed.TakesHeadsInSlices:Distributed.GivesTheSameBitsInAnySlices'
every='Distributed.MatchesSingleRankForEveryAlgorithmAndLayout:Distributed.MatchesSingleRankAtTheWidthsOfTensorCores'
shape=(--heads 32 --heads-kv 8 --head-dim 128 --dtype bf16 --mask causal)
gpus=${GPUS:-4}
sizes=(2 4 8 16)
[ "$cpu" = 1 ] && sizes=(1) && shape=(--heads 8 --heads-kv 8 --head-dim 16)

[ "$cpu" = 1 ] || gtest "replays, late, lost, same bits" 60 "$gpus" "OnGpu*" engine_gpu_mpi
gtest "slices" 60 "$gpus" "$slices:$every" engine_mpi
[ "$cpu" = 1 ] || gtest "slices, one hardware queue" 60 "$gpus" "$slices" engine_mpi CUDA_DEVICE_MAX_CONNECTIONS=1
[ "$cpu" = 1 ] || gtest "slices, push" 60 "$gpus" "$slices" engine_mpi ANNULUS_TEST_PEER_COPIES=push
for tokens in "${sizes[@]}"; do
  [ "$cpu" = 1 ] || ceiling "$gpus" "$(awk "BEGIN { printf \"%d\", 1024 * $tokens * sqrt($gpus) }")" "${shape[@]}" \
    --warmup 3 --iterations 20
  for n in 1 chosen 2 4; do
    forced=()
    [ "$n" = chosen ] || forced=(--ulysses-slices "$n")
    bench "ulysses ${tokens}k, $n" 40 "$gpus" --seq $((tokens * gpus))k "${shape[@]}" --algorithm ulysses \
      "${forced[@]}" --warmup 3 --iterations 20 --check sample
  done
done
bench "ulysses ${sizes[-1]}k, traced" 40 "$gpus" --seq $((sizes[-1] * gpus))k "${shape[@]}" --algorithm ulysses --warmup 2 \
  --iterations 3 --check none --trace "$out/ulysses.json"
finish
