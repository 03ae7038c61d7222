#!/bin/bash
# Issue C on two GPUs, under 4 minutes but for the matrices, which come last and may run out of BUDGET: masks and
# widths on 2 and 4 ranks, ways to copy, replays, traces, what stands between two copies, host times.
# docs/notes/01 has what it said: "How exact many ranks are", "Between two copies".
. "$(dirname "$0")/common.sh"

gpus=${GPUS:-2}
red='Distributed.MatchesSingleRankForEveryMaskOnTensorCores:Distributed.MatchesSingleRankAtTheWidthsOfTensorCores'
shape=(--heads 32 --heads-kv 8 --head-dim 128 --dtype bf16 --mask causal)
ways=("gather 1k" "gather 16k" "ring 16k" "ulysses 1k" "ulysses 16k")
[ "$cpu" = 1 ] && shape=(--heads 4 --heads-kv 4 --head-dim 16) && ways=("gather 1k")

gtest "masks, widths: peer, $gpus ranks" 90 "$gpus" "$red" engine_mpi
gtest "the same, $((2 * gpus)) ranks" 90 $((2 * gpus)) "$red" engine_mpi
if [ "$cpu" != 1 ]; then
  gtest "widths: push" 40 "$gpus" "${red#*:}" engine_mpi ANNULUS_TEST_PEER_COPIES=push
  gtest "widths: one hardware queue" 40 "$gpus" "${red#*:}" engine_mpi CUDA_DEVICE_MAX_CONNECTIONS=1
  gtest "replays, late, lost, same bits" 60 "$gpus" "OnGpu*" engine_gpu_mpi
  gtest "traces" 40 "$gpus" "*" trace_mpi
  step "peer: 64 transfers, gaps" 40 "${mpi[@]}" "$gpus" peer_gpu --copies pull --mib 4,16,64 --gaps
fi
for way in "${ways[@]}"; do
  read -r algorithm tokens <<<"$way"
  bench "$way a GPU" 30 "$gpus" --seq $((${tokens%k} * gpus))k "${shape[@]}" --algorithm "$algorithm" \
    --warmup 3 --iterations 20 --check sample
done
runs "matrix_peer_$gpus" "matrix_nccl_$gpus"
finish
