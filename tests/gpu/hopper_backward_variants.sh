#!/bin/bash
# Checks each tuning of the Hopper backward under a deadline, then times those that are right, and
# those that are wrong on purpose, side by side, and prints where the time of a step goes:
#   tests/gpu/hopper_backward_variants.sh [path of hopper_backward_variants_gpu] [seconds for the timing]
set -uo pipefail
gpu=${1:-build-gpu/tests/hopper_backward_variants_gpu}
good=()
while read -r variant; do
  timeout -k 5 30 "$gpu" check "$variant"
  status=$?
  [ $status -eq 77 ] && exit 77
  [ $status -eq 0 ] && good+=("$variant")
  [ $status -ge 124 ] && echo "HANGS: $variant"
done < <("$gpu" list)
[ ${#good[@]} -eq 0 ] && exit 1
timeout -k 5 60 "$gpu" trace "${good[@]}"
timeout -k 5 "${2:-120}" "$gpu" time "${good[@]}"
