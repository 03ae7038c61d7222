#!/bin/bash
# Whole calls of the command: exit codes, the one line of a refusal, JSON that parses.
#   command_test.sh ANNULUS SOURCE_DIR [MPIRUN]
set -uo pipefail
annulus=$1 source=$2 mpirun=${3:-}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# refused TEXT ARGUMENT...: exit 2, one line on stderr that holds TEXT, nothing on stdout.
refused() {
  local text=$1 code=0
  shift
  "$annulus" "$@" >"$scratch/out" 2>"$scratch/err" || code=$?
  [ "$code" -eq 2 ] || fail "annulus $*: exit $code, not 2"
  [ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "annulus $*: not one line: $(cat "$scratch/err")"
  grep -qF -- "$text" "$scratch/err" || fail "annulus $*: no '$text' in: $(cat "$scratch/err")"
  [ -s "$scratch/out" ] && fail "annulus $*: writes to standard output"
}

# passes SCHEMA ARGUMENT...: exit 0, JSON alone on stdout.
passes() {
  local schema=$1 code=0
  shift
  "$annulus" "$@" --json - >"$scratch/out" 2>"$scratch/err" || code=$?
  [ "$code" -eq 0 ] || fail "annulus $*: exit $code: $(tail -1 "$scratch/err")"
  [ "$(head -c 1 "$scratch/out")" = "{" ] || [ "$(head -c 1 "$scratch/out")" = "[" ] ||
    fail "annulus $*: no JSON on standard output"
  grep -qF "\"schema\":\"$schema\"" <(tr -d ' ' <"$scratch/out") || fail "annulus $*: no $schema"
}

refused "no subcommand"
refused "did you mean bench?" benhc
refused "--seq: required" cost
refused "stray" cost --seq 8 banana
refused "did you mean --heads-kv?" cost --seq 8 --heads_kv 2
refused "unknown option" cost --se 8
refused "--seq: '0'" cost --seq 0
refused "--seq: '-1'" plan --seq -1
refused "multiple" cost --seq 8 --heads 5 --heads-kv 2
refused "window_left" plan --seq 8 --mask window
refused "needs documents" plan --seq 8 --mask documents
refused "sum to 7" plan --seq 8 --mask documents --documents 3,4
refused "prefix_length" plan --seq 8 --mask prefix
refused "needs segments" plan --seq 8 --mask causal+segments
refused "needs mask_file" plan --seq 8 --mask custom
refused "twice" plan --seq 8 --mask causal+causal
refused "ulysses_degree" plan --seq 8 --world 4 --algorithm hybrid
refused "--ulysses-degree: '3'" plan --seq 8 --world 4 --algorithm hybrid --ulysses-degree 3
refused "--ulysses-degree: '2'" plan --seq 8 --world 4 --algorithm ring --ulysses-degree 2
refused "--ulysses-degree: '2'" plan --seq 8 --world 4 --algorithm ulysses --ulysses-degree 2
refused "chunks" cost --stage chunked --chunks 0-300
refused "decode_kv" cost --stage chunked
refused "--prompt: required" cost --stage decode
refused "folder does not exist" cost --seq 8 --json "$scratch/no/x.json"
refused "is a folder" plan --seq 8 --json "$scratch"
refused "--html" cost --seq 8 --html x.html
refused "mpirun -np 4" bench --seq 8 --world 4
refused "needs ranks" bench --seq 8 --transport mpi
refused "between GPUs" bench --seq 8 --transport nccl --backend cpu
CUDA_VISIBLE_DEVICES= refused "no GPU was found" bench --seq 8 --backend cuda
refused "required by --op moe" bench --seq 8 --op moe
refused "of the list" bench --seq 8k,none
refused "folder does not exist" bench --seq 8 --json "$scratch/no/x.json"
printf '[problem]\nseq = 8\nheads = many\n' >"$scratch/bad.cfg"
refused "$scratch/bad.cfg:3: heads: 'many'" cost --config "$scratch/bad.cfg"
ANNULUS_SEQ=nan refused "ANNULUS_SEQ: 'nan'" cost

refused "--system: required" cost --seq 80 --compare-modes
refused "--hidden: required" cost --seq 80 --compare-modes --system h100
refused "is not known; allowed: a100_40gb" cost --seq 80 --system h1000
printf '{"num_attention_heads": 4, "head_dim": 8, "num_hidden_layers": 8, "num_experts": 16, "attn_layer_period": 8, "attn_layer_offset": 4}' >"$scratch/jamba.json"
refused "layers 0 to 3: nobody prices kind 'mamba'" cost --seq 80 --model "$scratch/jamba.json"
for call in "bench --op attention" "bench --op local" "bench --op layer" "bench --op moe" "bench --suite accounting" \
  "bench --suite classic --op local" plan; do
  # shellcheck disable=SC2086
  refused "layers 0 to 3: nobody prices kind 'mamba'; built: dense, moe" $call --seq 80 --model "$scratch/jamba.json"
done
refused "cannot go with policy = legacy" cost --seq 80 --policy legacy --mode corrected
refused "needs --op local" bench --suite classic
refused "does not fit" bench --op local --suite accounting
refused "allowed: auto, local" bench --suite accounting --transport mpi
refused "one kernel on one rank" bench --op local --seq 8 --transport local --world 2
refused "folder does not exist" bench --suite accounting --svg "$scratch/no/x.svg"

for command in attend bench cost doctor mask plan route; do
  # Not a pipe into grep -q, which leaves early and breaks it.
  "$annulus" $command --help >"$scratch/out" || fail "$command --help: exit $?"
  grep -q -- --ulysses-degree "$scratch/out" || fail "$command --help"
done
[ "$("$annulus" --version | cut -d' ' -f1)" = annulus ] || fail "--version"
passes annulus.cost/1 cost --seq 8k --heads 24 --heads-kv 8 --head-dim 128 --sp 2
passes annulus.cost/1 cost --stage decode --prompt 1000 --generated 37 --beam 4 --heads 8
passes annulus.cost/1 cost --stage chunked --chunks 0:300,2048:212 --decode-kv 80,4x2048,1/4/1000/37 --heads 8
passes annulus.plan/1 plan --seq 613 --world 5
passes annulus.plan/1 plan --seq 613 --world 4 --compare --ulysses-degree 2 --heads 8
# bench prices by the policy that was asked for. Causal or not, one of 2 ranks: a product is 2·64·64·8 = 65536 MACs
# corrected and half of that original, so (1 dense · 131072 + 2 moe · 65536) = 262144.
passes annulus.bench/1 bench --seq 64 --heads 2 --head-dim 8 --layers 3 --layer-kinds dense:1,moe:2 --experts 4 --system h100 \
  --policy legacy --transport local --world 2 --iterations 1 --warmup 0
tr -d ' ' <"$scratch/out" | grep -qF '"policy":"legacy"' || fail "bench does not say which policy it took"
tr -d ' ' <"$scratch/out" | grep -qF '"accounting":"legacy","macs_rank_model":262144,' || fail "bench prices by another policy"
for config in "$source"/configs/*.cfg; do passes annulus.cost/1 cost --config "$config"; done
passes annulus.latency/1 cost --compare-modes --system h100 --model "$source/configs/models/llama2_7b.json" --seq 80
grep -qF '"latency_s":0.003811175' "$scratch/out" || fail "llama2_7b at 80 tokens is not 3.8112 ms"
passes annulus.latency/1 cost --compare-modes --system h200 --model "$source/configs/models/llama3_8b.json" \
  --stage chunked --chunks 1024:511 --decode-kv 1600,1601,1602
# GenZ's own point U-020: DeepSeek-V3 as it sizes it, 80 tokens, tp 8, ep 4, fp8, offloaded: 793.8637610613 ms
passes annulus.latency/1 cost --compare-modes --system h100 --model "$source/configs/models/deepseek_v3_genz.json" \
  --seq 80 --tp 8 --ep 4 --precision fp8 --offload true --softmax-factor 1
grep -qF '"latency_s":0.79386376106130' "$scratch/out" || fail "deepseek_v3_genz is not 793.86 ms"
passes annulus.cost/1 cost --config "$source/configs/deepseek_v3_4n8g_with_sp.cfg" --policy legacy
passes annulus.sizes/1 cost --model "$source/configs/models/deepseek_v3.json" \
  --legacy-model "$source/configs/models/deepseek_v3_genz.json"
grep -qF '"weights":671025397760' "$scratch/out" || fail "deepseek_v3 has not 671025397760 weights"
# 61 layers of a prefill of 32k on sp = 4 and 16 heads a rank: 32768 · 8192 keys · (192 + 128) against · 2 · 56
passes annulus.latency/1 cost --config "$source/configs/deepseek_v3_4n8g_with_sp.cfg" --compare-modes --system h100
grep -qF '"attention_macs_rank":83837761617920' "$scratch/out" || fail "deepseek_v3 has not 61·16·2^28·320 MACs of attention"
passes annulus.models/1 cost --config "$source/configs/deepseek_v3_4n8g_with_sp.cfg" --compare-modes --system h100 \
  --legacy-model "$source/configs/models/deepseek_v3_genz.json"
grep -qF '"attention":{"macs_rank":83837761617920,' "$scratch/out" || fail "models: the true attention is missing"
grep -qF '"attention":{"macs_rank":29343216566272,' "$scratch/out" || fail "models: GenZ's attention is missing"
passes annulus.cost/1 cost --seq 8k --system h200
passes annulus.plan/1 plan --seq 8k --system h200 --world 4
passes annulus.accounting/1 bench --suite accounting --seq 256 --mask full --iterations 1 --svg "$scratch/a.svg"
tr -d ' ' <"$scratch/out" | grep -qF '"executed_speedup":4.0' || fail "accounting: 4 ranks did not share the work"
tail -1 "$scratch/a.svg" | grep -qF '</svg>' || fail "accounting: no chart"
passes annulus.bench/1 bench --op local --seq 61 --kernel flash2 --check full --iterations 1
for algorithm in auto ring gather ulysses; do
  passes annulus.bench/1 bench --seq 61 --heads 6 --heads-kv 2 --head-dim 16 --transport local --world 3 \
    --algorithm $algorithm --check full --iterations 1 --warmup 0
done
passes annulus.bench/1 bench --seq 40 --heads 4 --transport local --world 4 --algorithm hybrid \
  --ulysses-degree 2 --check full --iterations 1 --pass forward --dtype f16
passes annulus.bench/1 bench --seq 1 --check full
passes annulus.bench/1 bench --config "$source/configs/seq80_sp1.cfg"

# has TEXT FILE: the file holds the text, blanks aside.
has() {
  tr -d ' ' <"$2" >"$scratch/packed"
  grep -qF -- "$1" "$scratch/packed" || fail "no $1 in $2: $(head -c 600 "$scratch/packed")"
}

# What travels in a ring's backward: as many heads each, so queries; both are priced.
ring="plan --seq 64 --heads 4 --head-dim 16 --dtype bf16 --world 4 --algorithm ring --pass backward"
# shellcheck disable=SC2086
passes annulus.plan/1 $ring
has '"backward_moves":"queries","ring_bytes_keys":180224,"ring_bytes_queries":120832' "$scratch/out"
has '"bytes_sent":[30208,30208,30208,30208]' "$scratch/out"
# shellcheck disable=SC2086
passes annulus.plan/1 $ring --backward-moves keys
has '"backward_moves":"keys"' "$scratch/out"
has '"bytes_sent":[45056,45056,45056,45056]' "$scratch/out"
# shellcheck disable=SC2086
"$annulus" $ring | grep -q '^backward moves queries: .*180224 bytes of keys.* 120832 of queries' || fail "plan: what moves is not said"
"$annulus" bench --seq 16 --iterations 1 --quiet --json "$scratch/f.json" --backward-moves values 2>/dev/null && fail "backward-moves values ran"

passes annulus.mask/1 mask --seq 100 --tile 10 --world 3 --layout contiguous
has '"unmasked_pairs":5050,"tiles_full":45,"tiles_partial":10,"tiles_empty":45' "$scratch/out"
has '"rank_pairs":[561,1650,2839]' "$scratch/out"
seq 40 >"$scratch/labels"
"$annulus" mask --seq 40 --labels "$scratch/labels" --svg "$scratch/m.svg" --quiet || fail "mask --svg: exit $?"
has '<title>query39&quot;40&quot;seeskey0&quot;1&quot;' "$scratch/m.svg"
passes annulus.doctor/1 doctor --matrix
has '"self_test":{"passed":true' "$scratch/out"
"$annulus" doctor >"$scratch/doctor" 2>&1 || fail "doctor: exit $?"
if [ -e /dev/nvidia0 ]; then
  grep -qE '^beside +a kernel on every SM:' "$scratch/doctor" || fail "doctor: GPUs are not measured"
else
  grep -qE '^GPU +no GPU: .{9}' "$scratch/doctor" || fail "doctor: does not say why there is no GPU"
  has '"gpu":{"unavailable":"' "$scratch/out"
fi
has '{"backend":"cpu","kernel":"flash2","dtype":"bf16","head_dim":"1-512","mask":"every","pass":"backward"}' "$scratch/out"
# Where GPU transports are built, the kernels for GPUs are in the table too, GPU or not.
if grep -qE '^transports +local.* peer' "$scratch/doctor"; then
  has '{"backend":"cuda","kernel":"flash2","dtype":"bf16","head_dim":"1-512","mask":"every","pass":"backward"}' "$scratch/out"
fi

# A grid is one line a point; points that cannot be are found before the first runs.
for command in "bench --iterations 1" cost plan; do
  # shellcheck disable=SC2086
  "$annulus" $command --seq 16,32,64 --heads 2,4 --quiet --json "$scratch/grid.json" || fail "$command grid: exit $?"
  [ "$(wc -l <"$scratch/grid.json")" -eq 6 ] || fail "$command grid: $(wc -l <"$scratch/grid.json") lines, not 6"
done
"$annulus" bench --seq 16 --head-dim 16,0 >"$scratch/out" 2>&1 && fail "a grid with a bad point ran"
[ "$(wc -l <"$scratch/out")" -eq 1 ] || fail "a point ran before the bad one was found"

# Honest fallback: one warning, named in JSON; auto says so too.
for call in "--kernel hopper" "--head-dim 600"; do
  # shellcheck disable=SC2086
  "$annulus" bench --seq 16 --iterations 1 $call --quiet --json "$scratch/f.json" 2>"$scratch/err" || fail "bench $call: exit $?"
  [ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "bench $call: not one warning: $(cat "$scratch/err")"
  grep -qF '"fallback_reason":"' "$scratch/f.json" || fail "bench $call: no reason in JSON"
done
"$annulus" bench --seq 16 --iterations 1 --kernel flash2 --strict --quiet --json "$scratch/f.json" || fail "strict: exit $?"
has '"kernel":{"used":"flash2","fallback_reason":null}' "$scratch/f.json"
has '"sm_limit":0}' "$scratch/f.json"
"$annulus" bench --seq 16 --iterations 1 --kernel flash2 --sm-limit 8 --json "$scratch/f.json" >"$scratch/out" || fail "sm_limit: exit $?"
has '"sm_limit":8}' "$scratch/f.json"
grep -q '^kernel .*sm_limit is ignored' "$scratch/out" || fail "sm_limit: the report does not say that flash2 has none"

value() { tr -d ' \n' <"$1" | grep -oE "\"$2\":\{[^}]*\}"; }
"$annulus" cost --config "$source/configs/seq80_sp1.cfg" --quiet --json "$scratch/a.json"
[ "$(value "$scratch/a.json" original | cut -d: -f2-)" = "$(value "$scratch/a.json" corrected | cut -d: -f2-)" ] ||
  fail "seq80_sp1: original and corrected differ"
"$annulus" cost --config "$source/configs/deepseek_v3_4n8g_with_sp.cfg" | grep -q '^experts: the 256 experts .* are in no row above' ||
  fail "deepseek_v3_4n8g_with_sp: cost does not say where its experts are counted"
"$annulus" cost --seq 64 | grep -q '^experts:' && fail "cost speaks of experts where there are none"
"$annulus" cost --config "$source/configs/deepseek_v3_4n8g_with_sp.cfg" --quiet --json "$scratch/a.json"
[ "$(value "$scratch/a.json" original | cut -d: -f2-)" != "$(value "$scratch/a.json" corrected | cut -d: -f2-)" ] ||
  fail "deepseek_v3_4n8g_with_sp: original and corrected agree"

if [ -n "$mpirun" ]; then
  code=0
  "$mpirun" -np 3 "$annulus" bench --seq 8 --head 2 >"$scratch/out" 2>"$scratch/err" || code=$?
  [ "$code" -eq 2 ] || fail "mpirun with a bad option: exit $code, not 2"
  [ "$(grep -c '^annulus: --head: unknown' "$scratch/err")" -eq 1 ] || fail "mpirun: refusal not printed once"
  code=0
  "$mpirun" -np 2 "$annulus" bench --seq 8 --json "$scratch/no/x" >"$scratch/out" 2>"$scratch/err" || code=$?
  [ "$code" -eq 2 ] || fail "mpirun with a bad output: exit $code, not 2"
  code=0
  "$mpirun" -np 2 "$annulus" bench --seq 8 --world 3 >"$scratch/out" 2>"$scratch/err" || code=$?
  [ "$code" -eq 2 ] || fail "mpirun with another world: exit $code, not 2"
  "$mpirun" -np 3 "$annulus" bench --seq 61 --check full --json "$scratch/b.json" --quiet >"$scratch/out" 2>&1 ||
    fail "mpirun bench: exit $?: $(tail -1 "$scratch/out")"
  [ -s "$scratch/b.json" ] || fail "mpirun bench: no report"
  "$mpirun" -np 2 "$annulus" bench --seq 16,32 --algorithm ring,ulysses --heads 2 --iterations 1 --quiet \
    --json "$scratch/grid.json" >"$scratch/out" 2>&1 || fail "mpirun grid: exit $?: $(tail -1 "$scratch/out")"
  [ "$(wc -l <"$scratch/grid.json")" -eq 4 ] || fail "mpirun grid: $(wc -l <"$scratch/grid.json") lines, not 4"
  "$mpirun" -np 2 "$annulus" doctor --quiet --json "$scratch/d.json" >"$scratch/out" 2>&1 || fail "mpirun doctor: exit $?"
  has '"name":"mpi,2ranks:transfer","passed":true' "$scratch/d.json"
fi
ls "$scratch"/*.part >/dev/null 2>&1 && fail "a failed run left its output"
[ "$failures" -eq 0 ] && echo "all calls behave"
exit $((failures > 0))
