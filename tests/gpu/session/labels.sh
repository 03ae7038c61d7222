#!/bin/bash
# The tests of ctest's labels gpu1, gpu2, gpu4 and gpu8 where there is no build tree: labels.sh LABEL|NAME ...
# Names and limits: tests/gpu/rank_run.sh list LABEL. A whole label takes longer than BUDGET's 570 s: the matrices
# (every algorithm, layout, mask, one transport each) have a call of their own.
. "$(dirname "$0")/common.sh"

runs "$@"
finish
