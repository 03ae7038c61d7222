#!/bin/bash
# Mixtures of experts on 1, 2, 4 or 8 GPUs (GPUS, default 2), about 3 minutes; one.sh has the order of a session.
# ARCHIVE names another archive than .gpu/gpu.tar.xz. With GPUS=1 it shows one rank, and ranks that share a GPU.
#
# Predicted (docs/notes/10-moe-on-gpus.md):
#   moe kernels        all pass: losses, capacity, noise, tokens once a rank, rounds and messages among them
#   moe times          losses 12 us, capacity 25 to 35 us, noise 100 us
#   moe peers          rows delivered; once a rank, expanded and combined gives k x too, or it says which element does not;
#                      NCCL's rows are right, and for DeepSeek-V3 once a rank takes 0.16 (2 GPUs), 0.33 (4), 0.49 (8) of its time
#   moe::Layer         15 of 15, gives the CPU's routes and drops; once a rank and NCCL (a GPU for each rank, else
#                      skipped) have the bits of copies; steps keep what recompute says, with the same bits; degrees 1 to 8
#                      have the same bits (8 threads, or 8 processes)
#   bench              check passed; tokens once a rank at least as fast as copies on the DeepSeek-V3 proxy from 2 GPUs on;
#                      spill rounds pass the check and say "rounds 2" or more
. "$(dirname "$0")/common.sh"
gpus=${GPUS:-2}
ranks=$((gpus > 1 ? gpus : 2))
cublas=$(find /usr /opt /root /home -name 'libcublas.so.1[23]' -printf '%h\n' 2>/dev/null | sort | tail -1)
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$cublas"

# measured FILE NAME RANKS ARGUMENT...: a bench with its check, and its JSON in FILE.
measured() {
  local file=$1 name=$2 n=$3
  shift 3
  rm -f "$file"
  quiet=1 step "$name" 90 "${mpi[@]}" "$n" annulus bench --backend $backend --json "$file" --check sample "$@"
  [ -f "$file" ]
}

# experts NAME RANKS ARGUMENT...: a line of figures.
experts() {
  local file=$work/json/moe.json
  measured "$file" "$@" --op moe || return 0
  python3 - "$file" <<'PYTHON' | tee -a "$out/summary.txt"
import json, sys
for line in open(sys.argv[1]):
    p = json.loads(line)
    f, b, load = p["timing"]["forward"], p["timing"]["backward"], p["load"]
    ms = lambda t: "-" if t is None else f"{1e3 * t['median_s']:.2f} ms"
    print(f"    {p['device']['name']}, {p['kernel']['used']}, {p['parallel']['transport']}: forward {ms(f)}, backward {ms(b)}, "
          f"{p['throughput']['forward_tflops_per_rank']:.0f} and {p['throughput']['backward_tflops_per_rank']:.0f} TFLOP/s, "
          f"{p['comm']['dispatch']} travel, rounds {load['rounds']}, meetings {1e6 * p['comm']['exposed_s']:.0f} us, busiest rank {load['rank_max_over_mean']:.2f} of the mean, "
          f"check {'passed' if p['check']['passed'] else 'FAILED'}")
    cost, times = p["imbalance"], lambda x: "-" if x is None else f"{x:.2f}"
    print(f"      busiest expert {load['expert_max_over_mean']:.2f} of the mean, {load['unused_experts']} unused; of the same layer when balanced: "
          f"forward {times(cost['forward_over_balanced'])}, backward {times(cost['backward_over_balanced'])}")
PYTHON
  return 0
}

# layer NAME RANKS ARGUMENT...: attention, then experts; a line of figures of each.
layer() {
  local file=$work/json/layer.json
  measured "$file" "$@" --op layer || return 0
  python3 - "$file" <<'PYTHON' | tee -a "$out/summary.txt"
import json, sys
for line in open(sys.argv[1]):
    p = json.loads(line)
    m = p["layer"]["moe"]
    ms = lambda t: "-" if t is None else f"{1e3 * t['median_s']:.2f} ms"
    passed = lambda c: "passed" if c["passed"] else "FAILED"
    for what, part in (("attention", p), ("experts", m)):
        print(f"    {what}: forward {ms(part['timing']['forward'])}, backward {ms(part['timing']['backward'])}, "
              f"check {passed(part['check'])}")
PYTHON
  return 0
}

if [ "$cpu" = 1 ]; then
  for routing in uniform balanced zipf one_hot; do
    experts "small, $routing" 2 --seq 64 --hidden 32 --experts 16 --top-k 4 --expert-ffn 24 --expert-degree 2 --routing $routing
  done
  layer "small, attention and experts" 2 --seq 64 --heads 2 --head-dim 16 --hidden 32 --experts 16 --top-k 4 --expert-ffn 24 --routing uniform
  experts "small" 2 --seq 64 --hidden 32 --experts 16 --top-k 4 --expert-ffn 24 --expert-degree 2 --routing router --router mixtral
  finish
  exit
fi

step "moe kernels" 100 moe_gpu --check --gtest_brief=1
step "moe times" 20 moe_gpu --balance
grep -E ' us' "$work/step.out" | tee -a "$out/summary.txt"
if [ "$gpus" -gt 1 ]; then
  step "moe peers" 90 moe_gpu --peers
  grep -E ' us|goal|NCCL' "$work/step.out" | tee -a "$out/summary.txt"
fi
gtest "moe::Layer, threads" 120 0 '*' moe_engine_gpu
# 4096 tokens a GPU. As many rows and as much work a GPU as the proxies of issue G on eight.
v3=(--dtype bf16 --hidden 7168 --expert-ffn 2048 --top-k 8 --warmup 2 --iterations 10)
mixtral=(--dtype bf16 --hidden 4096 --expert-ffn 14336 --top-k 2 --experts 8 --warmup 2 --iterations 10)
experts "one GPU, 8 experts" 1 --seq 4k "${v3[@]}" --experts 8 --routing balanced
experts "one GPU, in rounds" 1 --seq 4k "${v3[@]}" --experts 8 --routing zipf --receive-factor 0.6
if [ "$gpus" -gt 1 ]; then
  for way in rows tokens; do
    experts "DeepSeek-V3 proxy, $way" $gpus --seq $((4 * gpus))k "${v3[@]}" --experts 32 --expert-degree $gpus --routing uniform --dispatch $way
  done
  for routing in balanced zipf one_hot; do  # uniform: above
    experts "DeepSeek-V3 proxy, $routing" $gpus --seq $((4 * gpus))k "${v3[@]}" --experts 32 --expert-degree $gpus --routing $routing
  done
  layer "attention and experts" $gpus --seq $((4 * gpus))k --heads 32 --heads-kv 8 --head-dim 128 --dtype bf16 --hidden 4096 --experts 32 \
    --top-k 8 --expert-ffn 1536 --expert-degree $gpus --routing router --router mixtral --warmup 2 --iterations 10
  experts "DeepSeek-V3 proxy, shared expert" $gpus --seq $((4 * gpus))k "${v3[@]}" --experts 32 --expert-degree $gpus --routing balanced --shared-experts 1 --shared-ffn 2048
  experts "DeepSeek-V3 proxy, its router" $gpus --seq $((4 * gpus))k "${v3[@]}" --experts 32 --expert-degree $gpus --routing router --router deepseek_v3
  experts "Mixtral proxy, balanced" $gpus --seq $((4 * gpus))k "${mixtral[@]}" --expert-degree $gpus --routing balanced
  experts "Mixtral proxy, zipf, in rounds" $gpus --seq $((4 * gpus))k "${mixtral[@]}" --expert-degree $gpus --routing zipf --receive-factor 1.25
  experts "Mixtral proxy, by NCCL" $gpus --seq $((4 * gpus))k "${mixtral[@]}" --expert-degree $gpus --routing balanced --transport nccl
fi
gtest "moe::Layer, processes" 120 $ranks '*' moe_engine_gpu_mpi
gtest "moe::Layer, one rank" 60 1 '*' moe_engine_gpu_mpi
finish
