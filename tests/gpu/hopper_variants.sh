#!/bin/bash
# Checks each tuning of a Hopper kernel under a deadline, then times those that are right, and those
# that are wrong on purpose, side by side; of the backward also where the time of a step goes:
#   tests/gpu/hopper_variants.sh [hopper_variants_gpu or hopper_backward_variants_gpu] [seconds for the timing]
set -uo pipefail
gpu=${1:-build-gpu/tests/hopper_variants_gpu}
right=()
while read -r variant; do
  timeout -k 5 30 "$gpu" check "$variant"
  status=$?
  [ $status -eq 77 ] && exit 77
  [ $status -eq 0 ] && right+=("$variant")
  [ $status -ge 124 ] && echo "HANGS: $variant"
done < <("$gpu" list)
[ ${#right[@]} -eq 0 ] && exit 1
timeout -k 5 60 "$gpu" trace
timeout -k 5 "${2:-240}" "$gpu" time "${right[@]}"
