#!/bin/bash
# Third call: four GPUs, under 10 minutes. Before it: one.sh (which has the whole order) and two.sh.
# On eight GPUs the same with GPUS=8 (ceiling: S / sqrt 8).
#
# Seen on 4 H100s on 2026-11-28 (docs/performance.md, docs/testing.md): all but composite, 5 ranks, engine_gpu as
# processes, and 1M tokens, whose inputs took the time. Predicted since:
#   gather at once     forward 30 to 50 us less than then at every size (own keys are packed in place); replays at
#                      most 60 us
#   1M tokens          inputs 5 s, forward some 4 s, backward some 14 s a call on 4 H100s; fits 80 GB: about 9 GB of
#                      tensors, and the arena
. "$(dirname "$0")/common.sh"

shape=(--heads 32 --heads-kv 8 --head-dim 128 --dtype bf16 --mask causal)
gpus=${GPUS:-4}

if [ "$cpu" = 1 ]; then
  runs push_4 shared_5
  bench "long" 60 4 --seq 2k --heads 4 --head-dim 32 --warmup 0 --iterations 1 --check none
  finish
  exit
fi

step "peer, pull" 60 "${mpi[@]}" $gpus peer_gpu --copies pull
step "peer, push" 60 "${mpi[@]}" $gpus peer_gpu --copies push
step "moe peers" 75 moe_gpu --peers
ceiling $gpus "$(awk "BEGIN { printf \"%d\", 16384 * sqrt($gpus) }")" "${shape[@]}" --warmup 2 --iterations 10
for transport in peer nccl; do
  for algorithm in gather ulysses ring; do
    bench "$algorithm $transport" 60 $gpus --seq $((16 * gpus))k "${shape[@]}" --algorithm $algorithm \
      --transport $transport --warmup 2 --iterations 10 --check sample
  done
done
# One launch that takes keys as they arrive (above, peer) against a launch a slice, each under the
# ceiling of its size.
for tokens in 1 2 4 8 16; do
  ceiling $gpus "$(awk "BEGIN { printf \"%d\", 1024 * $tokens * sqrt($gpus) }")" "${shape[@]}" --warmup 3 --iterations 20
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
gtest "engine_gpu, threads" 60 0 '*' engine_gpu
runs graphs_$gpus matrix_peer_$gpus trace_$gpus
finish
