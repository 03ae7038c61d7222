#!/bin/bash
# A small set of cases under a tool of compute-sanitizer, one after another: sanitizers are slow.
#   sanitize.sh TOOL DIR portable|hopper|moe   TOOL: memcheck, racecheck, synccheck, initcheck; kernels_gpu, moe_gpu in DIR
# Exit status 77, and why, where there is no GPU or no compute-sanitizer.
set -uo pipefail
tool=$1 dir=$2
case $3 in
  portable) cases=("flash2 causal bf16 dim 128:128 seq 130" "flash2 causal f16 dim 64:64 seq 130"
    "flash2 causal grouped bf16 dim 64" "flash2 late flag dim 128" "flash1 causal bf16 dim 64:64 seq 257"
    "naive causal bf16 dim 64:64 seq 257") ;;
  hopper) cases=("hopper causal bf16 dim 128:128 seq 130" "hopper causal f16 dim 64:64 seq 130"
    "hopper causal bf16 dim 128:128 seq 613" "hopper split rows bf16 dim 128:128 seq 7"
    "hopper dims causal bf16 dim 192:192 seq 130") ;;
  # Own kernels, products, and a whole layer: one rank, then ranks that store into each other's memory.
  moe) cases=("MoeKernelsPlacement.B_C_D_Corners:MoeKernelsRouter.E_F_WhatIsNoNumber"
    "MoeKernelsRows.*" "MoeKernelsActivate.*" "MoeKernelsBalance.LossesAndTheirGradientsAreTheHosts"
    "MoeKernelsProducts.HaveTheSameBitsAgain" "MoeKernelsLayer.EqualsFloat64ForwardAndBackward"
    "MoeKernelsLayer.RanksInCorners:MoeKernelsLayer.StepsKeepWhatIsNotComputedAgain") ;;
  *) echo "sanitize.sh: portable, hopper or moe, not $3" >&2 && exit 2 ;;
esac
there=$("$dir/count_gpus") || exit 2
[ "$there" -gt 0 ] || { echo "skipped: no GPU"; exit 77; }
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1)
[ -n "$sanitizer" ] || { echo "skipped: no compute-sanitizer"; exit 77; }
# racecheck does not follow mbarriers, which order all that the warps of hopper share: racecheck.py tells the hazards
# of known kinds from others.
filtered=0
[ "$tool $3" = "racecheck hopper" ] && filtered=1
report=$(mktemp)
trap 'rm -f "$report"' EXIT
failed=0
for one in "${cases[@]}"; do
  echo "== $tool: $one"
  # The host's oracle: what the other one computes on the GPU would be watched as well.
  command=("$dir/kernels_gpu" --host-oracle --only "$one")
  [ "$3" = moe ] && command=("$dir/moe_gpu" --check "--gtest_filter=$one" --gtest_brief=1)
  "$sanitizer" --tool "$tool" --error-exitcode 9 "${command[@]}" >"$report" 2>&1
  code=$?
  if [ $filtered = 0 ]; then
    cat "$report"
    [ $code -eq 0 ] || failed=1
    continue
  fi
  grep -v '^=========' "$report"
  [ $code -eq 0 ] || [ $code -eq 9 ] || failed=1  # 9: hazards, of whatever kind
  grep -q '^ok' "$report" && ! grep -q '^FAIL' "$report" || failed=1
  python3 "$(dirname "${BASH_SOURCE[0]}")/racecheck.py" "$report" || failed=1
done
exit $failed
