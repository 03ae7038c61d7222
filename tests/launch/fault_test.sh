#!/bin/bash
# A rank that is stopped or gone, in set-up or mid-run: the others end within timeout_s + 5 s with code
# 3, and one line names a rank.
#   fault_test.sh ANNULUS MPIRUN
# FAULT_ARGS: the problem, and where it runs: GPUs want longer calls than "--seq 2k --heads 4", and take
# longer to begin (FAULT_DELAY_S) and to end (FAULT_LIMIT_S).
set -uo pipefail
annulus=$1 mpirun=$2 timeout_s=4 limit_s=${FAULT_LIMIT_S:-9} delay_s=${FAULT_DELAY_S:-2}
read -ra problem <<<"${FAULT_ARGS:---seq 2k --heads 4}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

# The wrapper that mpirun starts notes each rank's process, and may hold one before MPI_Init.
cat >"$scratch/rank" <<'WRAPPER'
#!/bin/bash
echo $$ >"$SCRATCH/pid.$OMPI_COMM_WORLD_RANK"
[ "${HOLD:-}" = "$OMPI_COMM_WORLD_RANK" ] && kill -STOP $$
[ -z "${NOTE_CODE:-}" ] && exec "$@"
# mpirun may drop what a dying job still writes, so codes are noted here and lines in --log-dir.
"$@" &
child=$!
echo $child >"$SCRATCH/pid.$OMPI_COMM_WORLD_RANK"
trap 'kill -TERM $child' TERM
wait $child
code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
echo $code >"$SCRATCH/code.$OMPI_COMM_WORLD_RANK"
[ -z "${HIDE_CODE:-}" ] || exit 0
exit $code
WRAPPER
chmod +x "$scratch/rank"
export SCRATCH=$scratch

run=("${problem[@]}")

# scenario NAME SIGNAL RANK [HOLD]: the signal is sent to the rank some seconds into the run.
scenario() {
  local name=$1 signal=$2 rank=$3 start code=0
  rm -f "$scratch"/pid.*
  HOLD=${4:-} timeout -k 5 60 "$mpirun" -np 3 "$scratch/rank" "$annulus" bench "${run[@]}" \
    --iterations 1M --check none --timeout-s $timeout_s >"$scratch/out" 2>"$scratch/err" &
  local job=$!
  if [ -z "${4:-}" ]; then
    sleep "$delay_s"
    kill "-$signal" "$(cat "$scratch/pid.$rank")"
  fi
  start=$(date +%s)
  wait $job || code=$?
  local took=$(($(date +%s) - start))
  local lines
  lines=$(grep -c '^annulus: .*rank' "$scratch/err")
  echo "$name: exit $code after $took s, $lines line(s): $(grep -m1 '^annulus: ' "$scratch/err")"
  [ "$took" -le $limit_s ] || { echo "FAILED: too late"; failures=$((failures + 1)); }
  [ "$code" -eq 3 ] || { echo "FAILED: exit $code, not 3"; failures=$((failures + 1)); }
  [ "$lines" -ge 1 ] || { echo "FAILED: no summary"; failures=$((failures + 1)); }
  for file in "$scratch"/pid.*; do kill -KILL "$(cat "$file")" 2>/dev/null; done
}

scenario "rank 2 stopped in set-up" STOP 2 2
scenario "rank 0 stopped in set-up" STOP 0 0
scenario "rank 1 stopped mid-run" STOP 1
scenario "rank 0 stopped mid-run" STOP 0
if [ -z "${FAULT_ARGS:-}" ]; then  # experts run on the CPU
  run=(--op moe --seq 2k --hidden 32 --experts 12 --top-k 2 --expert-ffn 16 --expert-degree 3)
  # The signal may come between two calls, where ranks wait for each other and no item is to be named.
  for _ in 1 2 3 4 5 6; do
    scenario "rank 1 stopped mid-run of moe" STOP 1
    named=$(grep -c "moe .*round 0.*rank 1" "$scratch/err")
    [ "$named" -eq 0 ] || break
    grep -q "'before a timed call'; rank 1 did not arrive" "$scratch/err" || break
  done
  [ "$named" -gt 0 ] || { echo "FAILED: no item"; failures=$((failures + 1)); }
  run=("${problem[@]}")
fi

# gone NAME MPIRUN_ARGUMENT...: rank 1 is killed mid-run. Counts the survivors that ended by themselves: with
# code 3, and a log that names rank and item.
export NOTE_CODE=1
gone() {
  local name=$1
  shift
  rm -f "$scratch"/pid.* "$scratch"/code.* "$scratch"/rank-*.log
  timeout -k 5 60 "$mpirun" "$@" -np 3 "$scratch/rank" "$annulus" bench "${problem[@]}" --iterations 1M \
    --check none --timeout-s $timeout_s --log-dir "$scratch" >"$scratch/out" 2>"$scratch/err" &
  local job=$! start
  survivors=0
  sleep "$delay_s"
  kill -KILL "$(cat "$scratch/pid.1")"
  start=$(date +%s)
  wait $job
  [ $(($(date +%s) - start)) -le $limit_s ] || { echo "FAILED: too late"; failures=$((failures + 1)); }
  for rank in 0 2; do
    local code line
    code=$(cat "$scratch/code.$rank" 2>/dev/null)
    line=$(grep -m1 'error: .*rank.*item' "$scratch/rank-$rank.log")
    echo "$name: rank $rank exits ${code:-without a code}, logs: $line"
    [ "${code:-3}" = 3 ] || { echo "FAILED: not 3"; failures=$((failures + 1)); }
    [ -n "$code" ] && [ -n "$line" ] && survivors=$((survivors + 1))
  done
}
# mpirun does not hear of it: the deadline alone ends both survivors, unless they were between two calls.
export HIDE_CODE=1
for _ in 1 2 3; do
  gone "rank 1 killed mid-run" --enable-recovery
  [ $survivors -lt 2 ] || break
done
[ $survivors -eq 2 ] || { echo "FAILED: $survivors of 2 survivors ended by themselves"; failures=$((failures + 1)); }
unset HIDE_CODE
# mpirun ends the job by itself, with 137, and kills a second after its SIGTERM: too soon for ranks on a GPU.
if [ -z "${FAULT_ARGS:-}" ]; then
  for _ in 1 2 3 4 5; do
    gone "rank 1 gone mid-run"
    [ $survivors -eq 0 ] || break
  done
  [ $survivors -gt 0 ] || { echo "FAILED: no survivor ended by itself"; failures=$((failures + 1)); }
fi
unset NOTE_CODE

scenario "rank 0 interrupted" TERM 0
exit $((failures > 0))
