#!/bin/bash
# Every file of configs/ says what it means: it is valid, can be planned and priced at full size, and
# runs shrunk, with its check, on four ranks. Grids: every point; the smallest and largest run.
#   configs_test.sh SOURCE_DIR ANNULUS [MPIRUN]
set -uo pipefail
source=$1 annulus=$2 mpirun=${3:-}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMP_NUM_THREADS=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r "$source/configs" "$scratch/configs"
failures=0 points=0 runs=0

fail() {
  echo "FAILED: $*: $(grep -h '^annulus' "$scratch/err" | head -1)"
  failures=$((failures + 1))
}

value() { sed -nE "s/^$2 *= *([^#]*[^# ]) *(#.*)?$/\1/p" "$1"; }

# points_of FILE: the files of its points, beside it, since paths are relative to a file.
points_of() {
  local line key word point
  line=$(grep -nE '^[a-z_]+ *= *[^#,]+,' "$1" | grep -vE '^[0-9]+:(documents|chunks|decode_kv)\b' | head -1)
  if [ -z "$line" ]; then
    echo "$1"
    return
  fi
  key=$(sed -E 's/^[0-9]+:([a-z_]+).*/\1/' <<<"$line")
  for word in $(value "$1" "$key" | tr ',' ' '); do
    point=${1%.cfg}.$word.cfg
    sed -E "${line%%:*}s/=.*/= $word/" "$1" >"$point"
    points_of "$point"
  done
}

# holds TEXT: the report does. No pipe: grep -q would break it.
holds() { grep -q "$1" <(tr -d ' ' <"$scratch/out"); }

# priced SCHEMA SUBCOMMAND FILE
priced() {
  "$annulus" "$2" --config "$3" --json - >"$scratch/out" 2>"$scratch/err" || { fail "$2 $3: exit $?"; return; }
  holds "\"schema\":\"$1\"" || fail "$2 $3: no $1"
}

# runs_shrunk FILE: by 64; by more where that leaves over 512 tokens.
runs_shrunk() {
  local file=$1 shrink=64 tokens code=0 start=() more=()
  tokens=$("$annulus" plan --config "$file" --quiet --json - | tr -d ' ' | grep -oE '"seq":[0-9]+' | cut -d: -f2)
  while [ $((tokens / shrink)) -gt 512 ]; do shrink=$((shrink * 2)); done
  [ "$(value "$file" algorithm)" = hybrid ] && more=(--ulysses-degree 2)
  [ -n "$(value "$file" expert_degree)" ] && more+=(--expert-degree 4)
  if [ -n "$mpirun" ] && [ $((runs % 2)) -eq 0 ]; then
    start=("$mpirun" -np 4 --bind-to none)
  else
    more+=(--transport local)
  fi
  runs=$((runs + 1))
  "${start[@]}" "$annulus" bench --config "$file" --world 4 --shrink "$shrink" "${more[@]}" --check sample \
    --warmup 0 --iterations 1 --timeout-s 60 --json - >"$scratch/out" 2>"$scratch/err" </dev/null || code=$?
  [ "$code" -eq 0 ] || { fail "bench $file shrunk by $shrink: exit $code"; return; }
  holds '"passed":true' || fail "bench $file shrunk by $shrink: not checked"
  holds '"world":4' || fail "bench $file shrunk by $shrink: not four ranks"
}

while read -r file; do
  mapfile -t list < <(points_of "$file")
  for point in "${list[@]}"; do
    priced annulus.plan/1 plan "$point"
    priced annulus.cost/1 cost "$point"
  done
  points=$((points + ${#list[@]}))
  runs_shrunk "${list[0]}"
  [ ${#list[@]} -gt 1 ] && runs_shrunk "${list[-1]}"
done < <(find "$scratch"/configs/*.cfg "$scratch"/configs/grids/*.cfg | sort)

# A model that no file names would never be read.
for model in "$scratch"/configs/models/*.json; do
  "$annulus" plan --seq 64 --model "$model" --quiet >/dev/null 2>"$scratch/err" || fail "$model"
done
echo "$points points planned and priced, $runs runs on four ranks, $failures failures"
[ "$points" -gt 5 ] && [ "$failures" -eq 0 ]
