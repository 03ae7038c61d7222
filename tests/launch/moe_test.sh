#!/bin/bash
# bench --op moe and --op layer on four ranks: every routing with its whole check, what JSON says of
# load and imbalance, models, and refusals.
#   moe_test.sh ANNULUS SOURCE_DIR [MPIRUN]
set -uo pipefail
annulus=$1 source=$2 mpirun=${3:-}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMP_NUM_THREADS=1 ANNULUS_EXPERT_DEGREE=4  # the environment, so that an option may differ
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0
threads=(--transport local --world 4)
ranks=("$annulus" bench "${threads[@]}")
[ -n "$mpirun" ] && ranks=("$mpirun" -np 4 --bind-to none "$annulus" bench)
small=(--seq 301 --hidden 48 --experts 16 --top-k 3 --expert-ffn 32 --warmup 0 --iterations 1 --timeout-s 60)

fail() {
  echo "FAILED: $*: $(head -c 400 "$scratch/err")"
  failures=$((failures + 1))
}

# checked COMMAND...: exit 0, and the check passed.
checked() {
  local code=0
  "$@" --json - >"$scratch/out" 2>"$scratch/err" </dev/null || code=$?
  [ "$code" -eq 0 ] || fail "$*: exit $code"
  has '"schema":"annulus.bench/1"' '"passed":true'
}

has() {
  local text
  tr -d ' ' <"$scratch/out" >"$scratch/packed"
  for text in "$@"; do grep -qF -- "$text" "$scratch/packed" || fail "no $text"; done
}

refused() {
  local text=$1 code=0
  shift
  "$annulus" bench "$@" >"$scratch/out" 2>"$scratch/err" || code=$?
  [ "$code" -eq 2 ] || fail "$*: exit $code, not 2"
  grep -qF -- "$text" "$scratch/err" || fail "$*: no '$text'"
}

checked "${ranks[@]}" --op moe "${small[@]}" --check full --shared-experts 2 --shared-ffn 20
has '"op":"moe"' '"expert_degree":4' '"routing":"uniform"' '"shared_dgate_rel_err"' '"forward_over_balanced"' \
  '"flops_rank_layer"' '"rounds":1'
for routing in balanced zipf one_hot; do
  checked "$annulus" bench "${threads[@]}" --op moe "${small[@]}" --check full --routing $routing --dtype bf16
done
# 301 tokens, three experts of rank 0 each: all rows there, and four times the mean.
has '"rank_rows":[903,0,0,0]' '"rank_max_over_mean":4.0' '"unused_experts":13'
# 903 rows of 6·48·32 = 9216 FLOPs there and nothing elsewhere; backward twice that.
has '"exact":{"flops_rank_layer":[8322048,0,0,0],"backward_flops_rank_layer":[16644096,0,0,0]}' \
  '"executed":{"flops_rank_layer":[8322048,0,0,0],"backward_flops_rank_layer":[16644096,0,0,0]}' '"policy":"uniform"' \
  '"bytes":{"sent_rank_layer":['
checked "${ranks[@]}" --op moe "${small[@]}" --check full --routing one_hot --receive-factor 0.9 --recompute dispatch
# The two first products of every row run again: 4·48·32 FLOPs.
has '"rounds":5' '"dropped_pairs":0' '"backward_flops_rank_layer":[22192128,0,0,0]' 'executedbackward>exact:rowscameinrounds'
checked "$annulus" bench "${threads[@]}" --op moe "${small[@]}" --routing uniform --capacity-factor 0.5 --activation gelu
tr -d ' ' <"$scratch/out" | grep -qE '"dropped_pairs":[1-9]' || fail "a capacity of half drops nothing"
for router in mixtral qwen3 deepseek_v3; do
  checked "$annulus" bench "${threads[@]}" --op moe "${small[@]}" --check full --routing router --router $router \
    --expert-degree 2
done
has '"weights_rel_err"' '"drouter_rel_err"'
# The router's weights of what is kept depend on what capacity drops.
for router in mixtral deepseek_v3; do
  checked "$annulus" bench "${threads[@]}" --op moe "${small[@]}" --check full --routing router --router $router \
    --capacity-factor 0.5
  tr -d ' ' <"$scratch/out" | grep -qE '"dropped_pairs":[1-9]' || fail "a router's capacity of half drops nothing"
done
tr -d ' ' <"$scratch/out" | grep -qE '"without_router_forward":{"median_s":' || fail "imbalance has the router's time"
# Without anything computed again, executed is exact: rows, shared experts and the router.
for pass in flops backward_flops; do
  counts=$(grep -oE "\"${pass}_rank_layer\":\[[0-9,]*\]" "$scratch/packed" | sort | uniq -c | awk '{print $1}')
  [ "$counts" = 2 ] || fail "executed $pass are not the exact ones"
done
checked "${ranks[@]}" --op layer "${small[@]}" --heads 4 --head-dim 12 --check full
has '"op":"layer"' '"moe":' '"lse_rel_err"' '"ddown_rel_err"'
# Attention over all four ranks, by heads and in a ring; experts over two groups of two.
checked "${ranks[@]}" --op layer "${small[@]}" --heads 4 --head-dim 12 --check full --algorithm ulysses --expert-degree 2
has '"ulysses_degree":4' '"expert_degree":2' '"dq_rel_err"' '"ddown_rel_err"'
checked "$annulus" bench "${threads[@]}" --op layer "${small[@]}" --heads 3 --head-dim 12 --check full --algorithm ring \
  --expert-degree 2 --dtype bf16 --routing zipf
has '"algorithm":"ring"' '"expert_degree":2' '"dq_rel_err"' '"ddown_rel_err"'
# Each kind of layer runs: a dense FFN is 6·48·40 = 11520 FLOPs for each of 301 tokens, and an expert has its 903 rows of
# 9216. The model has 2 and 3 of them: 2·3467520 + 3·8322048, and attention five times.
checked "${ranks[@]}" --op layer "${small[@]}" --heads 4 --head-dim 12 --check full --algorithm ring --layers 5 \
  --layer-kinds dense:1,moe:3,dense:1 --ffn 40
has '"dense":{' '"shared_ddown_rel_err"' '"kind":"dense","layers":2' '"kind":"moe","layers":3' '"layers":5,"forward_s":'
! command -v python3 >/dev/null || python3 - "$scratch/out" <<'END' || fail "the sums by count are wrong"
import json, sys
report = json.load(open(sys.argv[1]))
layer, attention = report["layer"], sum(report["cost"]["executed"]["flops_rank_layer"])
of = lambda kind: sum(layer[kind]["cost"]["executed"]["flops_rank_layer"])
assert of("dense") == 301 * 11520 and of("moe") == 903 * 9216, layer
assert layer["model"]["executed_flops"] == 5 * attention + 2 * 3467520 + 3 * 8322048, layer["model"]
median = [kind["timing"]["forward"]["median_s"] for kind in layer["kinds"]]
assert abs(layer["model"]["forward_s"] - 2 * median[0] - 3 * median[1]) < 1e-9
END
refused "--ffn: required by --op layer" "${threads[@]}" --op layer "${small[@]}" --layers 2 --layer-kinds dense:1,moe:1
checked "$annulus" bench "${threads[@]}" --op moe --model "$source/configs/models/mixtral_8x7b.json" --seq 8k --shrink 64 \
  --routing router --iterations 1
has '"tokens":128' '"hidden":64' '"experts":8' '"top_k":2' '"expert_ffn":224' '"router":"mixtral"'

refused "--hidden: required by --op moe" --op moe --seq 8
refused "does not fit 4 ranks" "${threads[@]}" --op moe "${small[@]}" --expert-degree 3
refused "16 experts are no multiple of it" --transport local --world 3 --op moe "${small[@]}" --expert-degree 3
refused "allowed: 1 to 4" "${threads[@]}" --op moe --seq 8 --hidden 8 --experts 4 --top-k 5 --expert-ffn 8
refused "needs router" "${threads[@]}" --op moe "${small[@]}" --routing router
refused "built: f32, bf16" "${threads[@]}" --op moe "${small[@]}" --dtype f16
refused "is not built for experts; built: auto, peer, nccl" --world 4 --transport composite --op moe "${small[@]}" --backend cuda
CUDA_VISIBLE_DEVICES= refused "no GPU was found" "${threads[@]}" --op moe "${small[@]}" --backend cuda --receive-factor 2
CUDA_VISIBLE_DEVICES= refused "no GPU was found" "${threads[@]}" --op moe "${small[@]}" --backend cuda
refused "moves data between GPUs" --world 4 --transport nccl --op moe "${small[@]}"
echo "$failures failures"
[ "$failures" -eq 0 ]
