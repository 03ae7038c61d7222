#!/bin/bash
# launch/run on two hosts, which are two network namespaces with host names of their own, joined by one
# link: the job runs over that link; hosts that differ are named before it starts; a cut link ends it.
# Exit 77: cannot be tried here, and why.
#   netns_test.sh SOURCE_DIR ANNULUS
set -uo pipefail
source=$1 annulus=$(realpath "$2")
skip() {
  echo "SKIPPED: $*"
  exit 77
}
[ "$(id -u)" -eq 0 ] || skip "two network namespaces need root"
for tool in ip unshare mpirun; do command -v "$tool" >/dev/null || skip "$tool not found"; done

scratch=$(mktemp -d)
hosts=("an$$a" "an$$b")
failures=0
clean_up() {
  local host pid
  for host in "${hosts[@]}"; do
    for pid in $(ip netns pids "$host" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null; done
    ip netns del "$host" 2>/dev/null
    rm -rf "/etc/netns/$host"
  done
  rmdir /etc/netns 2>/dev/null
  rm -rf "$scratch"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

for host in "${hosts[@]}"; do
  ip netns add "$host" 2>"$scratch/why" || skip "no network namespaces here: $(cat "$scratch/why")"
  mkdir -p "/etc/netns/$host"
  printf '127.0.0.1 localhost\n10.77.0.1 %s\n10.77.0.2 %s\n' "${hosts[@]}" >"/etc/netns/$host/hosts"
done
ip link add v0 netns "${hosts[0]}" type veth peer name v1 netns "${hosts[1]}" 2>"$scratch/why" ||
  skip "no veth here: $(cat "$scratch/why")"
for i in 0 1; do
  ip -n "${hosts[$i]}" addr add "10.77.0.$((i + 1))/24" dev "v$i"
  ip -n "${hosts[$i]}" link set lo up
  ip -n "${hosts[$i]}" link set "v$i" up
done
printf '%s slots=2  # first\n\n%s slots=2\n' "${hosts[@]}" >"$scratch/hosts"

# What ssh does: a command on a host, under its own name. The second host may hold another binary.
cat >"$scratch/rsh" <<RSH
#!/bin/bash
host=\$1
shift
swap=true
[ "\$host" = "${hosts[1]}" ] && [ -e "$scratch/other" ] && swap="mount --bind $scratch/other $annulus"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec ip netns exec "\$host" unshare --uts --mount sh -c "hostname \$host; \$swap; \$*"
RSH
chmod +x "$scratch/rsh"

# on_first ARGUMENT...: launch/run as typed on the first host; its exit code in `code`.
on_first() {
  code=0
  "$scratch/rsh" "${hosts[0]}" "$(printf '%q ' "$source/launch/run" --annulus "$annulus" --hosts \
    "$scratch/hosts" --rsh "$scratch/rsh" "$@")" >"$scratch/out" 2>"$scratch/err" </dev/null || code=$?
}
received() { ip netns exec "${hosts[1]}" cat /sys/class/net/v1/statistics/rx_bytes 2>/dev/null ||
  ip -n "${hosts[1]}" -s -o link show v1 | sed -E 's/.*RX:[^0-9]*([0-9]+).*/\1/'; }

echo "a job runs over the link, checked against float64"
before=$(received)
export ANNULUS_SEED=5 SPDLOG_LEVEL=warn
on_first -n 4 --interface 10.77.0.0/24 --limit 100 -- bench --seq 1k --heads 4 --algorithm ring \
  --check full --iterations 2 --timeout-s 20 --json -
[ "$code" -eq 0 ] || fail "exit $code: $(tail -5 "$scratch/err")"
grep -q '"world":4,' <(tr -d ' \n' <"$scratch/out") || fail "not four ranks: $(head -c 300 "$scratch/out")"
grep -q 'preflight: 2 hosts hold the same' "$scratch/err" || fail "no preflight: $(head -3 "$scratch/err")"
grep -q 'run: timeout -k 10 100 mpirun -np 4 --hostfile .* --map-by ppr:2:node .* -x ANNULUS_SEED -x' \
  "$scratch/err" || fail "no exact line: $(grep run: "$scratch/err")"
# A key/value chunk is 512 KiB; several cross the link in each call.
crossed=$(($(received) - before))
echo "   $crossed bytes crossed the link"
[ "$crossed" -gt 1000000 ] || fail "only $crossed bytes crossed the link"

echo "a host with another command is named, and nothing starts"
cp "$annulus" "$scratch/other"
echo more >>"$scratch/other"
on_first -n 4 --interface 10.77.0.0/24 -- bench --seq 80
[ "$code" -eq 2 ] || fail "exit $code, not 2"
grep -q "host ${hosts[1]} differs from ${hosts[0]}: $annulus is [0-9a-f]*, not [0-9a-f]*" "$scratch/err" ||
  fail "the host is not named: $(cat "$scratch/err")"
grep -q '^run:' "$scratch/err" && fail "the job was started all the same"
on_first -n 4 --interface 10.77.0.0/24 --no-preflight -- bench --seq 80 --timeout-s 20
[ "$code" -eq 0 ] || fail "--no-preflight: exit $code: $(tail -3 "$scratch/err")"
rm "$scratch/other"

echo "a host without the interface is named"
ip -n "${hosts[0]}" link add spare type dummy 2>/dev/null &&
  ip -n "${hosts[0]}" addr add 10.78.0.1/24 dev spare && ip -n "${hosts[0]}" link set spare up
on_first -n 4 --interface 10.78.0.0/24 -- bench --seq 80
[ "$code" -eq 2 ] || fail "exit $code, not 2"
grep -q "host ${hosts[1]}: interface 10.78.0.0/24 is missing there" "$scratch/err" ||
  fail "no reason: $(cat "$scratch/err")"

echo "a link that is cut ends the job on both hosts"
on_first -n 4 --interface 10.77.0.0/24 --limit 15 -- bench --seq 2k --heads 4 --iterations 1M \
  --check none --timeout-s 4 &
job=$!
sleep 5
ip -n "${hosts[0]}" link set v0 down
start=$(date +%s)
wait "$job"
took=$(($(date +%s) - start))
echo "   ended after $took s"
[ "$took" -le 25 ] || fail "took $took s"
sleep 1
for host in "${hosts[@]}"; do
  left=$(ip netns pids "$host" | xargs -r ps -o comm= -p | grep -c '^annulus')
  [ "$left" -eq 0 ] || fail "$left ranks are left on $host"
done
# Between two calls the ranks meet: there a rank counts as here whose word crossed the link before the cut. A
# rank of this side is named too where one of the two is through with a call, and the other is not.
grep -Eq '^annulus: rank [01] .*(ranks ([01], )?2, 3 did not answer|ranks? ([01], )?[23](, 3)? did not arrive)' "$scratch/err" ||
  fail "the ranks beyond the link are not named: $(cat "$scratch/err")"
exit $((failures > 0))
