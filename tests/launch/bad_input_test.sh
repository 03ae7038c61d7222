#!/bin/bash
# Every way of calling the command wrongly that the interface names: exit 2, one line that begins
# with the option as typed and says the value and what is allowed; no output left.
#   bad_input_test.sh ANNULUS [MPIRUN]
set -uo pipefail
annulus=$1 mpirun=${2:-}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# npy FILE DESCR SHAPE BYTES [ORDER]: a .npy file.
npy() {
  local dict="{'descr': '$2', 'fortran_order': ${5:-False}, 'shape': $3, }"
  while [ $(((${#dict} + 11) % 64)) -ne 0 ]; do dict+=' '; done
  printf '\x93NUMPY\x01\x00' >"$1"
  printf "\\x$(printf '%02x' $(((${#dict} + 1) % 256)))\\x$(printf '%02x' $(((${#dict} + 1) / 256)))" >>"$1"
  printf '%s\n' "$dict" >>"$1"
  head -c "$4" /dev/zero >>"$1"
}

npy mask.npy '|b1' '(8, 9)' 72
npy mask32.npy '<f4' '(8, 8)' 256
npy maskcut.npy '|u1' '(8, 8)' 63
npy maskf.npy '|b1' '(8, 8)' 64 True
printf '1\n2 # two\nx\n' >ids.txt
npy q.npy '<f4' '(1, 613, 24, 128)' 7532544
npy k.npy '<f4' '(1, 613, 8, 128)' 2510848
npy h.npy '<f2' '(1, 613, 8, 128)' 1255424
npy big.npy '>f4' '(1, 613, 8, 128)' 2510848
npy f64.npy '<f8' '(1, 613, 8, 128)' 5021696
npy fortran.npy '<f4' '(1, 613, 8, 128)' 2510848 True
npy cut.npy '<f4' '(1, 613, 8, 128)' 2510000
npy long.npy '<f4' '(1, 613, 8, 128)' 2510852
npy zero.npy '<f4' '(1, 0, 8, 128)' 0
npy qflat.npy '<f4' '(1883136,)' 7532544
npy kflat.npy '<f4' '(627712,)' 2510848
npy z.npy '<f4' '(3, 16)' 192
npy z7.npy '<f4' '(3, 7)' 84
npy z1.npy '<f4' '(48,)' 192
npy z0.npy '<f4' '(3, 0)' 0
npy z64.npy '<f8' '(3, 16)' 384
npy zbig.npy '>f4' '(3, 16)' 192
npy zcut.npy '<f4' '(3, 16)' 190
npy b.npy '<f4' '(16,)' 64
npy b7.npy '<f4' '(7,)' 28
printf 'not a tensor at all' >text.npy
printf '\x10\x00\x00\x00\x00\x00\x00\x00{"q":{"dtype":1}' >broken.safetensors
printf '[problem]\nseq = 8\nheads = many\n' >bad.cfg
printf '[problem]\nsqe = 8\n' >unknown.cfg
printf '[problem]\ncolour = 8\n' >none.cfg
printf '[problem]\nseq = 8\n[run]\ntimeout_s = 0\n' >timeout.cfg
printf '{"num_attention_heads": 8,' >cut.json
printf 'a\nb\n' >labels.txt
mkdir locked && chmod 555 locked
qkv="--q q.npy --k k.npy --v k.npy"

# WHERE the line begins with | what else it must hold | how it is called
while IFS='|' read -r where text call; do
  [ -z "$where" ] && continue
  code=0
  # shellcheck disable=SC2086
  "$annulus" $call >out.txt 2>err.txt || code=$?
  [ "$code" -eq 2 ] || fail "annulus $call: exit $code, not 2"
  [ "$(wc -l <err.txt)" -eq 1 ] || fail "annulus $call: not one line: $(cat err.txt)"
  [[ $(<err.txt) == "annulus: $where"* ]] || fail "annulus $call: does not begin with '$where': $(cat err.txt)"
  grep -qF -- "$text" err.txt || fail "annulus $call: no '$text' in: $(cat err.txt)"
  [ -s out.txt ] && fail "annulus $call: writes to standard output"
done <<TABLE
--seq: '0'|allowed: a whole number from 1|bench --seq 0
--seq: '-8'|allowed: a whole number from 1|bench --seq -8
--heads: '0'|allowed: a whole number from 1|cost --seq 8 --heads 0
--head-dim: '-1'|allowed|plan --seq 8 --head-dim -1
--batch: '0'|allowed|mask --seq 8 --batch 0
--heads-kv: heads 5|no multiple of heads_kv 2|bench --seq 8 --heads 5 --heads-kv 2
--mask: 'diagonal'|some of full, causal, window|bench --seq 8 --mask diagonal
--mask: 'window'|needs window_left|mask --seq 8 --mask window
--documents: 2 lengths sum to 7|the sum is seq (8)|mask --seq 8 --mask documents --documents 3,4
--documents: '@none.txt'|not a regular file|mask --seq 8 --mask documents --documents @none.txt
--documents: '-1'|whole numbers from 0|mask --seq 8 --mask documents --documents 9,-1
--mask: 'custom'|needs mask_file|bench --seq 8 --mask custom
--mask-file: 'none.npy'|does not exist|mask --seq 8 --mask custom --mask-file none.npy
--mask-file: 'mask.npy'|allowed: [8,8], seq and seq_kv|bench --seq 8 --mask custom --mask-file mask.npy
--mask-file: 'mask32.npy'|is of dtype '<f4'; allowed|mask --seq 8 --mask custom --mask-file mask32.npy
--mask-file: 'maskcut.npy'|needs 64 bytes, 63 are there|mask --seq 8 --mask custom --mask-file maskcut.npy
--mask-file: 'maskf.npy'|Fortran order|mask --seq 8 --mask custom --mask-file maskf.npy
--mask-file: 'text.npy'|is no .npy file|mask --seq 8 --mask custom --mask-file text.npy
--mask: 'causal+segments'|needs segments|mask --seq 8 --mask causal+segments
--segments: 2 ids|seq is 8|bench --seq 8 --mask segments --segments 1,2
--segments: '-2'|whole numbers from -1|bench --seq 2 --mask segments --segments 1,-2
--segments: '@none.txt'|not a regular file|bench --seq 2 --mask segments --segments @none.txt
ids.txt:3: segments: 'x'|whole numbers|bench --seq 2 --mask segments --segments @ids.txt
--segments-kv: 3 ids|seq_kv is 2|bench --seq 2 --mask segments --segments 1,2 --segments-kv 1,2,3
--mask: 'segments'|needs segments_kv|bench --seq 2 --seq-kv 3 --mask segments --segments 1,2
--ulysses-degree: '8'|a divisor of the world|plan --seq 8 --world 4 --algorithm hybrid --ulysses-degree 8
--ulysses-degree: '8'|4, the world|plan --seq 8 --world 4 --algorithm ulysses --ulysses-degree 8
--timeout-s: '0'|a number above 0|bench --seq 8 --timeout-s 0
--timeout-s: 'nan'|a number above 0|bench --seq 8 --timeout-s nan
--timeout-s: '-1'|a number above 0|bench --seq 8 --timeout-s -1
timeout.cfg:4: timeout_s: '0'|a number above 0|bench --config timeout.cfg
--sek|did you mean --seq?|bench --sek 8
--head: unknown|did you mean|bench --seq 8 --head 2
unknown.cfg:2: sqe|did you mean seq?|bench --config unknown.cfg
none.cfg:2: colour|unknown key|bench --config none.cfg
bad.cfg:3: heads: 'many'|allowed: a whole number|bench --config bad.cfg
--config: 'no.cfg'|does not exist|bench --config no.cfg
'banana'|stray word|bench --seq 8 banana
'mesk'|did you mean mask?|mesk --seq 8
cut.json: is not a JSON object|cut off|cost --seq 8 --model cut.json
--json: 'no/x.json'|folder does not exist|bench --seq 8 --json no/x.json
--json: '.'|is a folder|bench --seq 8 --json .
--trace: 'no/x.json' cannot be written|folder does not exist|bench --seq 8 --trace no/x.json
--trace: '.' cannot be written|is a folder|bench --seq 8 --trace .
--trace: '-'|so is json|bench --seq 8 --trace - --json -
--trace: 'x.json'|also the file of json|bench --seq 8 --trace x.json --json ./x.json
--trace: 'x.json'|only bench traces calls|plan --seq 8 --trace x.json
--trace: 'x.json'|op = moe plays no plan|bench --op moe --seq 8 --trace x.json
--svg: 'no/x.svg'|folder does not exist|mask --seq 8 --svg no/x.svg
--kernel: 'hopper'|strict forbids another|bench --seq 8 --kernel hopper --strict
--kernel: 'auto'|flash2, which cannot serve|bench --seq 8 --head-dim 600 --strict
--seq: 'x' of the list|allowed|bench --seq 8,x
--heads-kv: heads 4|no multiple of heads_kv 3|bench --seq 8,16 --heads 4 --heads-kv 2,3
--sm-limit: '-1'|a whole number from 0|bench --seq 8 --sm-limit -1
--ulysses-degree: '3'|a divisor|plan --seq 8 --world 4 --algorithm hybrid --ulysses-degree 2,3
--seq: '8,16' is a list|one value|mask --seq 8,16
--tile: '0'|allowed|mask --seq 8 --tile 0
--labels: 'labels.txt'|has 2 lines; allowed: 8|mask --seq 8 --labels labels.txt
--labels: 'none.txt'|not a regular file|mask --seq 8 --labels none.txt
--q: required|a path|attend
--out: required|a path|attend $qkv
--dq: required|a path|attend $qkv --dout q.npy --out o.npy
--dk: 'x.npy'|needs dout|attend $qkv --out o.npy --dk x.npy
--q: 'none.npy'|does not exist|attend --q none.npy --k k.npy --v k.npy --out o.npy
--q: 'x.pt'|allowed: FILE.npy, FILE.safetensors|attend --q x.pt --k k.npy --v k.npy --out o.npy
--k: 'big.npy'|is big-endian: '>f4'; allowed: '<f4' (f32), '<f2' (f16)|attend --q q.npy --k big.npy --v k.npy --out o.npy
--k: 'f64.npy'|another dtype: '<f8'; allowed|attend --q q.npy --k f64.npy --v k.npy --out o.npy
--k: 'h.npy'|is f16; allowed: f32|attend --q q.npy --k h.npy --v k.npy --out o.npy
--k: 'fortran.npy'|Fortran order; allowed: C order|attend --q q.npy --k fortran.npy --v k.npy --out o.npy
--v: 'cut.npy'|needs 2510848 bytes, 2510000 are there|attend --q q.npy --k k.npy --v cut.npy --out o.npy
--v: 'long.npy'|4 bytes behind|attend --q q.npy --k k.npy --v long.npy --out o.npy
--v: 'text.npy'|no .npy file|attend --q q.npy --k k.npy --v text.npy --out o.npy
--k: 'broken.safetensors'|no JSON|attend --q q.npy --k broken.safetensors --v k.npy --out o.npy
--q: its seq: '0'|allowed: a whole number from 1|attend --q zero.npy --k k.npy --v k.npy --out o.npy
--k: k has 627712 = 1·613·8·128 elements, [1,613,24,128] needs 1883136: set heads_kv=8||attend --q qflat.npy --k kflat.npy --v kflat.npy --out o.npy --seq 613 --heads 24 --head-dim 128
--k: k has 627712 = 1·613·8·128 elements, [1,613,24,128] needs 1883136: set heads_kv=8||attend $qkv --out o.npy --heads-kv 24
--dtype: 'bf16'|allowed: f32|attend $qkv --out o.npy --dtype bf16
--out: 'no/o.npy' cannot be written|folder does not exist|attend $qkv --out no/o.npy
--lse: './o.npy' cannot be written|same name|attend $qkv --out o.npy --lse ./o.npy
--out: 'k.npy'|also the input k|attend $qkv --out k.npy
--seq: '613,614' is a list|one value|attend $qkv --out o.npy --seq 613,614
--documents: 1 lengths sum to 7|the sum is seq (613)|attend $qkv --out o.npy --mask documents --documents 7
--router: required|one of deepseek_v3, mixtral, qwen3, switch|route
--router: 'gshard'|one of deepseek_v3, mixtral, qwen3, switch|route --router gshard --logits z.npy
--logits: required|a path|route --router mixtral
--logits: 'none.npy'|does not exist|route --router mixtral --logits none.npy
--logits: 'z.pt'|allowed: FILE.npy, FILE.safetensors|route --router mixtral --logits z.pt
--logits: 'text.npy'|is no .npy file|route --router mixtral --logits text.npy
--logits: 'z64.npy'|another dtype: '<f8'; allowed|route --router mixtral --logits z64.npy
--logits: 'zbig.npy'|is big-endian|route --router mixtral --logits zbig.npy
--logits: 'zcut.npy'|needs 192 bytes, 190 are there|route --router mixtral --logits zcut.npy
--logits: 'z1.npy'|has the shape [48]; allowed: [tokens, experts]|route --router mixtral --logits z1.npy
--logits: 'z0.npy'|has 0 experts|route --router mixtral --logits z0.npy
--logits: 'z7.npy'|7 experts are no multiple of 8 groups; give --groups|route --router deepseek_v3 --logits z7.npy
--logits: 'z7.npy'|k 8 of 7 experts that a token may use; give --top-k|route --router qwen3 --logits z7.npy
--groups: '5'|16 experts are no multiple of 5 groups|route --router deepseek_v3 --logits z.npy --groups 5
--groups-kept: '9'|allowed: 1 to 8|route --router deepseek_v3 --logits z.npy --groups-kept 9
--top-k: '0'|a whole number from 1|route --router mixtral --logits z.npy --top-k 0
--top-k: '9'|k 9 of 8 experts that a token may use|route --router deepseek_v3 --logits z.npy --top-k 9
--top-k: '2'|switch has one expert|route --router switch --logits z.npy --top-k 2
--bias: 'b.npy'|cannot go with mixtral|route --router mixtral --logits z.npy --bias b.npy
--bias: 'b7.npy'|has 7 values; allowed: 16|route --router deepseek_v3 --logits z.npy --bias b7.npy
--bias: 'z.npy'|has the shape [3,16]; allowed: [experts]|route --router deepseek_v3 --logits z.npy --bias z.npy
--renormalize: 'false'|cannot be with mixtral|route --router mixtral --logits z.npy --renormalize false
--capacity-factor: '-1'|a number above 0|route --router mixtral --logits z.npy --capacity-factor -1
--indices: 'o.txt'|allowed: FILE.npy|route --router mixtral --logits z.npy --indices o.txt
--indices: 'no/o.npy' cannot be written|folder does not exist|route --router mixtral --logits z.npy --indices no/o.npy
--weights: 'o.npy'|also the file of indices|route --router mixtral --logits z.npy --indices o.npy --weights o.npy
--indices: 'z.npy'|is also the input logits|route --router mixtral --logits z.npy --indices z.npy
--top-k: '1,2' is a list|one value|route --router mixtral --logits z.npy --top-k 1,2
TABLE

if [ "$(id -u)" -ne 0 ]; then
  "$annulus" attend $qkv --out locked/o.npy 2>err.txt
  [ $? -eq 2 ] || fail "a folder that is not writable"
fi

if [ -n "$mpirun" ]; then
  # Rank 0 alone sees the files, and every rank ends with its code.
  for call in "attend --q q.npy --k big.npy --v k.npy --out o.npy" "attend $qkv --out no/o.npy" \
    "bench --seq 8 --heads 5 --heads-kv 2" "mask --seq 8 --world 5" "route --router mixtral --logits z1.npy"; do
    code=0
    # shellcheck disable=SC2086
    "$mpirun" -np 3 "$annulus" $call >out.txt 2>err.txt || code=$?
    [ "$code" -eq 2 ] || fail "mpirun annulus $call: exit $code, not 2"
    [ "$(grep -c '^annulus: --' err.txt)" -eq 1 ] || fail "mpirun annulus $call: not one line"
  done
  code=0
  "$mpirun" -np 1 "$annulus" bench --seq 8 : -np 1 "$annulus" bench --seq 9 >out.txt 2>err.txt || code=$?
  [ "$code" -eq 2 ] || fail "ranks that disagree: exit $code, not 2"
  [ "$(grep -c "^annulus: --seq: rank 0 has '8', rank 1 has '9'" err.txt)" -eq 1 ] ||
    fail "ranks that disagree: $(cat err.txt)"
fi
[ -e o.npy ] && fail "a refused call left its output"
ls ./*.part >/dev/null 2>&1 && fail "a refused call left a part"
[ "$failures" -eq 0 ] && echo "every wrong call is refused alike"
exit $((failures > 0))
