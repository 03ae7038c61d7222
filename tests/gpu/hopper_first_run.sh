#!/bin/bash
# The Hopper kernels on their first GPU, forward and then both passes: from the smallest case to all,
# each under a deadline, since a wrong barrier hangs. Stops at the fourth failure: one alone says less
# than where the next ones are. Then their times and flash2's.
#   tests/gpu/hopper_first_run.sh [path of kernels_gpu] [correct | time]
set -uo pipefail
gpu=${1:-build-cuda/tests/kernels_gpu}
what=${2:-all}
failures=0

# SECONDS TEXT [forward]
check() {
  echo "== $*"
  timeout -k 5 "$1" "$gpu" --only "${@:2}"
  local status=$?
  [ $status -eq 0 ] && return
  [ $status -eq 77 ] && exit 77
  [ $status -ge 124 ] && echo "HANGS: ${*:2}"
  echo "FAILED: ${*:2} (status $status)"
  failures=$((failures + 1))
  [ $failures -lt 4 ] || exit 1
}

if [ "$what" != time ]; then
  for pass in forward ""; do
    for dim in 128 64; do
      for seq in 1 7 130 613; do check 20 "hopper full bf16 dim $dim:$dim seq $seq:$seq" $pass; done
      for seq in 1 130 613; do check 20 "hopper causal bf16 dim $dim:$dim seq $seq:$seq" $pass; done
    done
  done
  check 60 "hopper causal f16"
  check 60 "hopper causal grouped"
  check 90 "hopper causal many"
  for group in window documents prefix rows softcap "fewer" "small tiles" "masked tiles" "uneven tiles" \
    "odd segments" "segments in any order" striped resumed "half unvisited" misaligned "added key gradients" \
    "query segments"; do
    check 60 "hopper $group"
  done
  check 120 "hopper dims"
  for group in "heads outermost" "head offset" "late flag" abort graph; do check 60 "hopper $group"; done
  check 300 hopper
fi
[ $failures -eq 0 ] || exit 1
[ "$what" = correct ] && exit 0
for kernel in hopper flash2; do
  for shape in "bf16 128 full" "bf16 128 causal" "bf16 64"; do
    if [ "$kernel" = hopper ]; then
      timeout -k 5 240 "$gpu" --time hopper "$shape" || exit 1
      timeout -k 5 120 "$gpu" --time hopper "$shape" deterministic || exit 1
    else
      timeout -k 5 240 "$gpu" --time "$shape" || exit 1
    fi
  done
done
