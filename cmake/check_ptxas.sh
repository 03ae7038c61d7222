#!/bin/bash
# check_ptxas.sh COMMAND...: runs a compiler and fails where ptxas reports a spill or products that it
# makes wait for each other (C7508 to C7519: setmaxnreg ignored, wgmma serialised).
#   check_ptxas.sh --self-test
set -uo pipefail

complaints() {
  grep -E '\(C75(0[89]|1[0-9])\)|[1-9][0-9]* bytes spill|setmaxnreg.*ignored|wgmma.*serialized' "$1"
}

if [ "${1:-}" = --self-test ]; then
  failures=0
  expect() {  # STATUS TEXT
    "$0" printf '%s\n' "$2" >/dev/null 2>&1
    [ $? -eq "$1" ] && return
    echo "check_ptxas self-test: wanted status $1 for: $2"
    failures=$((failures + 1))
  }
  expect 0 '    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads'
  expect 1 '    8 bytes stack frame, 0 bytes spill stores, 12 bytes spill loads'
  expect 1 'ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized'
  expect 1 'ptxas warning : (C7508) Potential Performance Loss: setmaxnreg ignored to maintain minimum'
  [ $failures -eq 0 ] && echo "check_ptxas self-test: every complaint ends a build"
  exit $failures
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" >"$log" 2>&1
status=$?
cat "$log"
[ $status -ne 0 ] && exit $status
if complaints "$log" >/dev/null; then
  echo "check_ptxas: the lines above name spills or serialised products" >&2
  exit 1
fi
