#!/bin/bash
# Runs of rank_runs.txt, where GPUs are enough for them (else it says so, and exits with 77).
#   rank_run.sh list LABEL      names and limits in seconds of all runs with that label
#   rank_run.sh run NAME DIR    programs: DIR, DIR/tests or DIR/bin; a build tree, or what pack.sh packed
# ANNULUS_TEST_BACKEND=cpu runs the same on the CPU, with the mesh's own transport.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
table=$here/rank_runs.txt

die() {
  echo "rank_run.sh: $*" >&2
  exit 2
}

label_of() {
  local gpus
  for gpus in 1 2 4 8; do
    [ "$1" -le $gpus ] && echo gpu$gpus && return
  done
}

list() {
  local word name gpus ranks limit
  while read -r word name gpus ranks limit _; do
    [ "$word" = run ] && [ "$(label_of "$gpus")" = "$1" ] && echo "$name $limit"
  done <"$table"
  return 0
}

program() {
  local folder
  for folder in "$2/tests" "$2/bin" "$2"; do
    [ -x "$folder/$1" ] && [ -f "$folder/$1" ] && echo "$folder/$1" && return
  done
  die "no $1 in $2"
}

pattern() {
  local word name rest
  while read -r word name rest; do
    [ "$word" = filter ] && [ "$name" = "$1" ] && echo "$rest" && return
  done <"$table"
  die "no filter $1 in $table"
}

require_gpus() {
  local there count
  [ "$backend" = cuda ] || return 0
  count=$(program count_gpus "$2") || exit 2
  there=$("$count")
  [ "$there" -ge "$1" ] && return
  echo "skipped: $1 GPUs are wanted, $there found"
  exit 77
}

run() {
  local line gpus ranks limit name filter path
  line=$(grep -E "^run +$1 " "$table") || die "no run $1 in $table"
  read -r _ _ gpus ranks limit name filter rest <<<"$line"
  read -ra variables <<<"$rest"
  backend=${ANNULUS_TEST_BACKEND:-cuda}
  require_gpus "$gpus" "$2"
  filter=$(pattern "$filter") || exit 2
  if [ "$name" = fault_test.sh ]; then
    path=$(program annulus "$2") || exit 2
    [ "$backend" = cuda ] || variables=()
    [ "$backend" = cpu ] || variables+=("FAULT_ARGS=$filter")
    # The command takes ANNULUS_* for options.
    exec env -u ANNULUS_TEST_BACKEND "${variables[@]}" bash "$here/../launch/fault_test.sh" "$path" mpirun
  fi
  path=$(program "$name" "$2") || exit 2
  if [ "$name" = kernels_gpu ]; then
    read -r times text <<<"$filter"
    exec "$path" --only "$text" "$times"
  fi
  if [ "$name" = annulus ]; then  # the filter is bench's arguments; the command takes ANNULUS_* for options
    read -ra arguments <<<"$filter"
    exec env -u ANNULUS_TEST_BACKEND bash "$here/session/common.sh" ranks "$ranks" "${variables[@]}" "$path" bench \
      --backend "$backend" "${arguments[@]}"
  fi
  variables+=("ANNULUS_TEST_BACKEND=$backend")
  if [ "$ranks" -eq 0 ]; then exec env "${variables[@]}" "$path" "--gtest_filter=$filter"; fi
  exec bash "$here/session/common.sh" ranks "$ranks" "${variables[@]}" "$path" "--gtest_filter=$filter"
}

case "${1:-} $#" in
  "list 2") list "$2" ;;
  "run 3") run "$2" "$3" ;;
  *) die "list LABEL | run NAME DIR" ;;
esac
