#!/bin/bash
# Third call: four GPUs, under 10 minutes. Before it: one.sh (which has the whole order) and two.sh.
# On eight GPUs the same with GPUS=8 (ceiling: S / sqrt 8).
#
# Predicted (nothing of this was run on a GPU when it was written):
#   every algorithm x layout x mask on 4, 5 and 8 ranks (5 and 8 share GPUs): passed
#   peer, 4 ranks      as on two GPUs; 95 % of bare copies or more
#   bench              shares: gather, ulysses on peer 90 to 95 %, ring 85 to 95 %, nccl 85 to 90 %;
#                      composite (two pretended hosts) between them. Memory / planned within 1.05 (was 2:
#                      a context too many on GPU 0, docs/notes/01 fault 3). Host: forward at most 20 us + 3
#                      a transfer, a replay at most 30 us
#   gather at once     forward at 1k, 2k, 4k, 8k, 16k a GPU (docs/notes/09): 55, 75, 90, 95, 97 % of the ceiling;
#                      a launch a slice: 45, 60, 78, 86, 91 %
#   1M tokens          forward some 7 s, backward some 20 s a call on 4 H100s (9e15 and 2.3e16 FLOPs, 16k
#                      a GPU does 330 and 290 TFLOP/s); fits 80 GB: about 9 GB of tensors, and the arena
. "$(dirname "$0")/common.sh"

every='Distributed.MatchesSingleRankForEveryAlgorithmAndLayout'
masks="$every:Distributed.MatchesSingleRankForEveryMask"
shape=(--heads 32 --heads-kv 8 --head-dim 128 --dtype bf16 --mask causal)
gpus=${GPUS:-4}

if [ "$cpu" = 1 ]; then
  for n in 4 5; do gtest "masks, $n ranks" 120 $n "$every" engine_mpi; done
  bench "long" 60 4 --seq 2k --heads 4 --head-dim 32 --warmup 0 --iterations 1 --check none
  finish
  exit
fi

step "peer, pull" 60 "${mpi[@]}" $gpus peer_gpu --copies pull
step "peer, push" 60 "${mpi[@]}" $gpus peer_gpu --copies push
step "moe peers" 45 moe_gpu --peers
ceiling $gpus "$(awk "BEGIN { printf \"%d\", 16384 * sqrt($gpus) }")" "${shape[@]}" --warmup 2 --iterations 10
for transport in peer nccl; do
  for algorithm in gather ulysses ring; do
    bench "$algorithm $transport" 60 $gpus --seq $((16 * gpus))k "${shape[@]}" --algorithm $algorithm \
      --transport $transport --warmup 2 --iterations 10 --check sample
  done
done
# One launch that takes keys as they arrive (above, peer) against a launch a slice.
for tokens in 1 2 4 8 16; do
  for once in true false; do
    bench "gather ${tokens}k a GPU, at once $once" 40 $gpus --seq $((tokens * gpus))k "${shape[@]}" --algorithm gather \
      --transport peer --gather-at-once $once --warmup 3 --iterations 20 --check sample
  done
done
bench "gather composite" 60 $gpus --seq $((16 * gpus))k "${shape[@]}" --algorithm gather --transport composite \
  --ranks-per-host $((gpus / 2)) --warmup 2 --iterations 5 --check sample
for algorithm in gather ring ulysses; do
  bench "1M $algorithm" 120 $gpus --seq 1M "${shape[@]}" --algorithm $algorithm --warmup 0 --iterations 1 --check none
done
for n in 4 5 8; do gtest "every mask, $n ranks" 60 $n "$masks" engine_mpi; done
gtest "engine_gpu, threads" 60 0 '*' engine_gpu
gtest "engine_gpu, processes" 60 $gpus '*' engine_gpu_mpi
finish
