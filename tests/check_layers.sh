#!/bin/bash
# Holds the arrows of "Who may include whom" (docs/architecture.md) by reading #include lines.
#   tests/check_layers.sh               checks the repository; prints FILE:LINE: what, exits 1
#   tests/check_layers.sh --root DIR    checks another tree
#   tests/check_layers.sh --self-test   shows that each rule can fail
set -uo pipefail

# Functions answer in a variable: a subshell for each of thousands of includes takes half a minute.
answer=

# layer_of PATH: the layer that a file, or an included path, belongs to.
layer_of() {
  case $1 in
    runtime/include/annulus/* | annulus/*) answer=api ;;
    runtime/base/*) answer=base ;;
    comm/*) answer=comm ;;
    attention/kernels/*) answer=attention_kernels ;;
    attention/*) answer=attention ;;
    moe/kernels/*) answer=moe_kernels ;;
    moe/*) answer=moe ;;
    runtime/cost/*) answer=cost ;;
    runtime/engine/*) answer=engine ;;
    launch/*) answer=launch ;;
    tests/*) answer=tests ;;
    *) answer=foreign ;;
  esac
}

# may_include LAYER: the layers it may name.
may_include() {
  case $1 in
    api) answer=api ;;
    base) answer="api base" ;;
    comm) answer="api base comm" ;;
    attention_kernels) answer="api base attention_kernels" ;;
    moe_kernels) answer="api base moe_kernels" ;;
    attention) answer="api base comm attention attention_kernels" ;;
    moe) answer="api base comm moe moe_kernels" ;;
    cost) answer="api base comm attention attention_kernels moe moe_kernels cost" ;;
    engine) answer="api base comm attention attention_kernels moe moe_kernels cost engine" ;;
    launch) answer="api launch" ;;
    tests) answer="api base comm attention attention_kernels moe moe_kernels cost engine launch tests" ;;
    *) answer= ;;
  esac
}

# Hopper's instructions, which know nothing of attention: kernels of moe for Hopper see them too.
are_instructions() {
  [[ $1 == moe/kernels/sm90/* && $2 == attention/kernels/sm90/* ]] || return
  case ${2##*/} in
    ptx.cuh | wgmma.cuh | wgmma_operands.h | layout.cuh) ;;
    *) false ;;
  esac
}

# A kernel sees params.h, dispatch.h and its own back end's folder, not its neighbours'.
kernel_may_include() {
  local file=$1 included=$2
  case $included in
    attention/kernels/*/* | moe/kernels/*/*)
      local own=${file%/kernels/*}/kernels/ rest=${included#*/kernels/}
      case $file in
        # sm90 is the back end cuda's second folder, for one architecture.
        "$own"cuda/* | "$own"sm90/*)
          [[ $included == "$own"* && (${rest%%/*} == cuda || ${rest%%/*} == sm90) ]] ||
            are_instructions "$file" "$included"
          ;;
        "$own"*/*) [[ $file == "$own${rest%%/*}"/* ]] ;;
        *) true ;;  # dispatch.cpp names every back end
      esac
      ;;
    *) true ;;
  esac
}

violations=0
report() {
  echo "$1"
  violations=$((violations + 1))
}

check_include() {
  local file=$1 line=$2 included=$3 quoted=$4 from to
  layer_of "$file"
  from=$answer
  layer_of "$included"
  to=$answer
  case $included in
    mpi.h)
      case $file in
        comm/mpi/* | launch/* | tests/*) ;;
        *) report "$file:$line: mpi.h outside comm/mpi, launch and tests" ;;
      esac
      return
      ;;
    nccl.h)
      [[ $file == comm/nccl/* || $file == tests/* ]] || report "$file:$line: nccl.h outside comm/nccl"
      return
      ;;
  esac
  if [ "$to" = foreign ]; then
    if [ "$quoted" = '"' ]; then
      report "$file:$line: \"$included\" is no path from the repository's root"
    elif [ "$from" = api ] && [[ $included == *[./]* && $included != std*.h ]]; then
      report "$file:$line: <$included> in a public header: only annulus/* and the standard library"
    fi
    return
  fi
  if [ "$to" = api ] && [ "$quoted" = '"' ]; then
    report "$file:$line: \"$included\": public headers are included as <annulus/...>"
  fi
  may_include "$from"
  [[ " $answer " == *" $to "* ]] || are_instructions "$file" "$included" ||
    report "$file:$line: $from may not include $included ($to)"
  if [[ $from == *_kernels ]] && ! kernel_may_include "$file" "$included"; then
    report "$file:$line: a kernel may not include another back end's $included"
  fi
}

# long_functions FILE...: bodies of more than 200 lines, FILE:LINE: N lines. A body begins at a brace behind a
# parenthesis that opens neither a namespace nor a type; what is in it (lambdas, blocks) belongs to it.
long_functions() {
  awk '
    FNR == 1 { depth = 0; inside = 0; text = "" }
    /^[[:space:]]*#/ || continued { continued = /\\$/; next }
    {
      line = $0
      gsub(/\\./, "", line)
      gsub(/"[^"]*"/, "", line)
      gsub(/\047[^\047]\047/, "", line)
      sub(/\/\/.*/, "", line)
      for (i = 1; i <= length(line); i++) {
        c = substr(line, i, 1)
        if (c == "{") {
          depth++
          named = text ~ /namespace|extern|(^|[^a-z_])(struct|class|union|enum)[^()]*$/
          if (!inside && !named && text ~ /\)/) { inside = depth; start = FNR }
          text = ""
        } else if (c == "}") {
          if (inside && depth == inside) {
            if (FNR - start + 1 > 200) print FILENAME ":" start ": a function of " FNR - start + 1 " lines, the cap is 200"
            inside = 0
          }
          depth--
          text = ""
        } else {
          text = c == ";" ? "" : text c
        }
      }
      text = text " "
    }' "$@"
}

check_tree() {
  local file line text
  local pattern='^[[:space:]]*#[[:space:]]*include[[:space:]]*([<"])([^>"]+)[>"]'
  local folders=()
  for file in runtime comm attention moe launch tests; do [ -d "$file" ] && folders+=("$file"); done
  while IFS=: read -r file line text; do
    [[ $text =~ $pattern ]] && check_include "$file" "$line" "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}"
  done < <(grep -rnE "$pattern" --include='*.h' --include='*.c' --include='*.cpp' --include='*.cu' --include='*.cuh' "${folders[@]}")

  # One executor runs any plan: a new algorithm is a new plan builder and nothing else.
  while IFS=: read -r file line text; do
    report "$file:$line: the executor names an algorithm: $text"
  done < <(find attention -path 'attention/execute*' -type f -exec grep -niHE '\b(ring|gather|ulysses|hybrid)\b' {} + 2>/dev/null)

  while read -r line file; do
    [ "$file" != total ] && [ "$line" -gt 400 ] && report "$file:$line: $line lines, the cap is 400"
  done < <(find "${folders[@]}" -type f \( -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -exec wc -l {} +)

  local kernels=()
  for file in attention/kernels moe/kernels; do [ -d "$file" ] && kernels+=("$file"); done
  [ ${#kernels[@]} -eq 0 ] && return
  mapfile -t kernels < <(find "${kernels[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \))
  [ ${#kernels[@]} -eq 0 ] && return
  while read -r text; do report "$text"; done < <(long_functions "${kernels[@]}")
}

# expect NAME FILE TEXT: a tree that holds this one file must be refused.
expect() {
  local tree
  tree=$(mktemp -d)
  mkdir -p "$tree/$(dirname "$2")"
  printf '%b\n' "$3" >"$tree/$2"
  if "$self" --root "$tree" >/dev/null; then
    echo "check_layers self-test: not found: $1"
    failures=$((failures + 1))
  fi
  rm -rf "$tree"
}

self_test() {
  failures=0
  expect "api includes base" runtime/include/annulus/a.h '#include "runtime/base/x.h"'
  expect "api includes mpi.h" runtime/include/annulus/a.h '#include <mpi.h>'
  expect "api includes nccl.h" runtime/include/annulus/a.h '#include <nccl.h>'
  expect "api includes torch" runtime/include/annulus/a.h '#include <torch/extension.h>'
  expect "base includes comm" runtime/base/a.cpp '#include "comm/transport.h"'
  expect "comm includes attention" comm/a.h '#include "attention/mask.h"'
  expect "mpi.h outside comm/mpi" comm/local/a.cpp '#include <mpi.h>'
  expect "attention includes moe" attention/a.cpp '#include "moe/router.h"'
  expect "kernel includes comm" attention/kernels/cpu/a.cpp '#include "comm/transport.h"'
  expect "kernel includes attention" attention/kernels/cpu/a.cpp '#include "attention/mask.h"'
  expect "kernel includes a neighbour" attention/kernels/cpu/a.cpp '#include "attention/kernels/reference/a.h"'
  expect "cpu kernel includes sm90" attention/kernels/cpu/a.cpp '#include "attention/kernels/sm90/a.h"'
  expect "sm90 includes cpu" attention/kernels/sm90/a.cpp '#include "attention/kernels/cpu/a.h"'
  expect "moe's sm90 includes attention's loader" moe/kernels/sm90/a.cuh '#include "attention/kernels/sm90/loader.cuh"'
  expect "moe's cuda includes instructions" moe/kernels/cuda/a.cuh '#include "attention/kernels/sm90/ptx.cuh"'
  expect "cost includes engine" runtime/cost/a.cpp '#include "runtime/engine/session.h"'
  expect "launch includes comm" launch/a.cpp '#include "comm/transport.h"'
  expect "relative include" launch/a.cpp '#include "options.h"'
  expect "quoted public header" launch/a.cpp '#include "annulus/cost.h"'
  expect "executor names an algorithm" attention/execute/a.cpp '// only the Ring needs this'
  expect "file over 400 lines" comm/a.cpp "$(yes '//' | head -401)"
  # A member, in a struct in a namespace, with a block of its own.
  local lines
  lines=$(yes '  x();' | head -198)
  expect "function over 200 lines" attention/kernels/sm90/a.cuh "namespace a {\nstruct B {\nvoid f(int i) {\n$lines\nif (i) {}\n}\n};\n}"
  expect "function over 200 lines in moe" moe/kernels/cpu/a.cpp "template <int n>\nvoid f()\n{\n$lines\n  x();\n}"
  local good
  good=$(mktemp -d)
  mkdir -p "$good/attention/execute" "$good/attention/kernels/"{cpu,sm90} "$good/launch" "$good/moe/kernels/sm90"
  echo '#include "attention/kernels/sm90/ptx.cuh"' >"$good/moe/kernels/sm90/a.cuh"
  echo '#include "attention/kernels/cuda/a.h"' >"$good/attention/kernels/sm90/a.cpp"
  echo '// a string; all_gather' >"$good/attention/execute/a.cpp"
  # 200 lines, and 250 of two functions in one struct.
  printf '#include "attention/kernels/params.h"\nstruct A {\n%b\n%b\n};\n' "void f() {\n$lines\n}" "void g() {\n${lines:0:300}\n}" >"$good/attention/kernels/cpu/a.cpp"
  printf '#include <annulus/cost.h>\n#include <mpi.h>\n#include "launch/b.h"\n' >"$good/launch/a.cpp"
  if ! "$self" --root "$good"; then
    echo "check_layers self-test: refused what is allowed"
    failures=$((failures + 1))
  fi
  rm -rf "$good"
  [ "$failures" -eq 0 ] && echo "check_layers self-test: every rule can fail"
}

self=$(realpath "$0")
root=$(dirname "$self")/..
case ${1:-} in
  --self-test) self_test; exit ;;
  --root) root=$2 ;;
  "") ;;
  *) echo "usage: $0 [--root DIR | --self-test]" >&2; exit 2 ;;
esac
cd "$root" || exit 2
check_tree
[ "$violations" -eq 0 ] && exit 0
echo "$violations violations"
exit 1
