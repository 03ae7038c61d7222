#!/bin/bash
# A tool that listens to NVTX gets a range for each call, and for each item of its plan inside it.
#   nvtx_test.sh ANNULUS LISTENER
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
NVTX_INJECTION64_PATH=$2 NVTX_LISTENER_LOG=$log "$1" bench --seq 64 --heads 2 --head-dim 8 --backend cpu \
  --transport local --world 2 --algorithm ring --warmup 0 --iterations 1 --check none --quiet || exit 1
failures=0
# has COUNT PATTERN: two ranks, two passes, one timed call of each; one more round of transfers alone.
has() {
  local found
  found=$(grep -cE "$2" "$log")
  [ "$found" -eq "$1" ] && return
  echo "FAILED: '$2' $found times, not $1"
  failures=$((failures + 1))
}
has 2 '^0 annulus forward$'
has 2 '^0 annulus backward$'
has 1 '^1 rank 1 item [0-9]+: forward step 1: attend forward heads 0\.\.1$'
has 1 '^1 rank 0 item [0-9]+: forward step 0: transfer of kv \([0-9]+ bytes\) from rank 1$'
has 1 '^0 rank 0 item [0-9]+: forward step 0: transfer of kv \([0-9]+ bytes\) from rank 1$'
[ $failures -eq 0 ] && echo "$(wc -l <"$log") ranges"
exit $((failures > 0))
