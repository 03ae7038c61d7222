# Sourced by the other scripts: unpacks .gpu/gpu.tar.xz, runs steps with a time limit each, and
# ends with a short table. Results go to $OUT (default gpu-results/): session.log with everything that
# was printed, bench.jsonl with one line of JSON a benchmark, summary.txt with the table.
# Steps run to the end whatever fails, and none may outlast its limit: a hang costs its own limit only.
set -uo pipefail

# ranks N [VARIABLE=VALUE ...] COMMAND...: under mpirun.
ranks() {
  local n=$1 exported=()
  shift
  while [[ $1 == *=* ]]; do
    exported+=(-x "$1")
    shift
  done
  exec mpirun --allow-run-as-root --oversubscribe --bind-to none -x NCCL_NVLS_ENABLE=0 "${exported[@]}" -np "$n" "$@"
}
# timeout starts programs, not functions: this file serves as one.
[ "${1:-}" = ranks ] && { shift; ranks "$@"; }

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
mpi=(bash "$repo/tests/gpu/session/common.sh" ranks)
out=${OUT:-$repo/gpu-results}
work=${WORK:-/tmp/annulus-gpu}
# CPU=1 tries the scripts where there is no GPU: the same calls with --backend cpu and tiny sizes, from
# BUILD's tree; steps that need a GPU are left out.
cpu=${CPU:-0}
backend=cuda
[ "$cpu" = 1 ] && backend=cpu

# NVLink multicast stays off, for every process.
export NCCL_NVLS_ENABLE=0 GTEST_COLOR=no
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

# Seconds that all steps may take together: what starts the script has a limit of its own.
budget=${BUDGET:-570}
session_start=$SECONDS
mkdir -p "$out" "$work/json"
: >"$out/session.log" && : >"$out/bench.jsonl" && : >"$out/summary.txt"
if [ "$cpu" = 1 ]; then
  for file in "$repo/${BUILD:-build}"/bin/* "$repo/${BUILD:-build}"/tests/*; do
    [ -f "$file" ] && [ -x "$file" ] && ln -sf "$file" "$work/"
  done
else
  pack=${PACK:-$repo/.gpu/gpu.tar.xz}
  tar -C "$work" -xf "$pack" || python3 -c "
import sys, tarfile
tarfile.open(sys.argv[1]).extractall(sys.argv[2])" "$pack" "$work" || exit 1
fi
cd "$work" || exit 1
export PATH=$work:$PATH

# Programs of ours that a step which was cut off left behind: they may hold a GPU.
reap() {
  local entry
  for entry in /proc/[0-9]*; do
    [[ "$(readlink "$entry/exe" 2>/dev/null)" == "$work"/* ]] && kill -KILL "${entry#/proc/}" 2>/dev/null
  done
  sleep 1
}

# step NAME LIMIT_S COMMAND...: one line of the table: what became of it, seconds, its last line (none
# where `quiet` is set).
step() {
  local name=$1 limit=$2 start=$SECONDS code=0 left=$((budget - SECONDS + session_start))
  shift 2
  if [ $left -lt 15 ]; then
    printf '%-34s %-10s\n' "$name" "NO TIME" | tee -a "$out/summary.txt"
    return
  fi
  [ "$limit" -gt $((left - 5)) ] && limit=$((left - 5))
  printf '\n### %s (at most %s s): %s\n' "$name" "$limit" "$*" >>"$out/session.log"
  timeout -k 5 "$limit" "$@" >"$work/step.out" 2>&1 </dev/null || code=$?
  tail -c 400000 "$work/step.out" >>"$out/session.log"
  local verdict=ok last
  [ $code -ne 0 ] && verdict="exit $code"
  if [ $code -eq 124 ] || [ $code -eq 137 ]; then
    verdict="TIME LIMIT"
    reap
  fi
  [ $code -eq 77 ] && verdict=skipped
  last=
  [ -n "${quiet:-}" ] || last=$(grep -vE '^\s*$|^\[ +(OK|RUN) |Global test environment|^-+$' "$work/step.out" | tail -1 | cut -c1-110)
  printf '%-34s %-10s %4d s  %s\n' "$name" "$verdict" $((SECONDS - start)) "$last" | tee -a "$out/summary.txt"
  if [ $code -ne 0 ]; then
    grep -E 'Failure|FAILED|[Ee]rror|rank [0-9]+:' "$work/step.out" | head -6 | cut -c1-200 | sed 's/^/    /' |
      tee -a "$out/summary.txt"
  fi
}

# gtest NAME LIMIT_S RANKS FILTER PROGRAM [VARIABLE=VALUE ...]: RANKS 0: threads.
gtest() {
  local name=$1 limit=$2 n=$3 filter=$4 program=$5
  shift 5
  if [ "$n" -eq 0 ]; then
    step "$name" "$limit" env ANNULUS_TEST_BACKEND=$backend "$@" "$program" --gtest_filter="$filter"
  else
    step "$name" "$limit" "${mpi[@]}" "$n" ANNULUS_TEST_BACKEND=$backend "$@" "$program" --gtest_filter="$filter"
  fi
}

# runs NAME...: runs of ../rank_runs.txt by name, all of a label where NAME is gpu1, gpu2, gpu4 or gpu8.
runs() {
  local wanted name limit
  for wanted; do
    while read -r name limit; do
      [[ $wanted == gpu[1248] || $wanted == "$name" ]] || continue
      step "$name" "$limit" env ANNULUS_TEST_BACKEND=$backend bash "$repo/tests/gpu/rank_run.sh" run "$name" .
    done < <(for label in gpu1 gpu2 gpu4 gpu8; do
      [[ $wanted == gpu* && $wanted != $label ]] || bash "$repo/tests/gpu/rank_run.sh" list $label
    done)
  done
}

# bench NAME LIMIT_S RANKS ARGUMENT...: appends its JSON to bench.jsonl under "label".
bench() {
  local name=$1 limit=$2 n=$3
  shift 3
  rm -f json/point.json
  quiet=1 step "$name" "$limit" "${mpi[@]}" "$n" annulus bench --backend $backend --json json/point.json "$@"
  [ -f json/point.json ] && python3 - "$name" json/point.json >>"$out/bench.jsonl" <<'PYTHON'
import json, sys
for line in open(sys.argv[2]):
    print(json.dumps({"label": sys.argv[1], **json.loads(line)}))
PYTHON
  return 0
}

# Our local kernel on every GPU at once, each with 1/N of the work: the ceiling of what follows.
#   ceiling N SEQ ARGUMENT...
ceiling() {
  local n=$1 seq=$2 i
  shift 2
  local jobs=()
  for ((i = 0; i < n; ++i)); do
    CUDA_VISIBLE_DEVICES=$i timeout -k 5 90 annulus bench --backend $backend --seq "$seq" --json "json/ceiling$i.json" \
      --quiet --check none "$@" >"json/ceiling$i.log" 2>&1 </dev/null &
    jobs+=($!)
  done
  wait "${jobs[@]}"
  python3 - "$n" >>"$out/bench.jsonl" <<'PYTHON'
import json, sys
slowest = None
for i in range(int(sys.argv[1])):
    try:
        point = json.loads(open(f"json/ceiling{i}.json").readline())
    except OSError as error:
        print(f"no ceiling of GPU {i}: {error}", file=sys.stderr)
        continue
    if slowest is None or point["timing"]["forward"]["median_s"] > slowest["timing"]["forward"]["median_s"]:
        slowest = point
if slowest:
    print(json.dumps({"label": "ceiling", **slowest}))
PYTHON
}

finish() {
  nvidia-smi --query-gpu=name,memory.used,temperature.gpu,clocks.sm --format=csv,noheader 2>/dev/null >>"$out/session.log"
  echo "$((SECONDS - session_start)) s in all, $(cat commit 2>/dev/null | tr '\n' ' ')" | tee -a "$out/summary.txt"
  python3 "$repo/tests/gpu/session/table.py" "$out/bench.jsonl" | tee -a "$out/summary.txt"
}
