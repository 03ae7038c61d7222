#!/bin/bash
# launch/run and launch/slurm: the exact line they make, what they refuse, what they pass on. Two hosts
# that really run it: tests/netns.
#   launchers_test.sh SOURCE_DIR ANNULUS
set -uo pipefail
run=$1/launch/run slurm=$1/launch/slurm annulus=$2
unset SLURM_JOB_ID OMP_NUM_THREADS SPDLOG_LEVEL LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES
for name in $(compgen -e | grep -E '^(ANNULUS_|NCCL_)'); do unset "$name"; done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# makes LINE ARGUMENT...: launch/run --dry-run prints exactly this.
makes() {
  local line=$1 out
  shift
  out=$("$run" --annulus "$annulus" --dry-run "$@" 2>&1)
  [ "$out" = "$line" ] || fail "run $*: $out instead of $line"
}

# refused PROGRAM TEXT ARGUMENT...: exit 2, one line that holds TEXT.
refused() {
  local program=$1 text=$2 code=0
  shift 2
  "$program" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || code=$?
  [ "$code" -eq 2 ] || fail "$program $*: exit $code, not 2"
  [ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "$program $*: not one line: $(cat "$scratch/err")"
  grep -qF -- "$text" "$scratch/err" || fail "$program $*: no '$text' in: $(cat "$scratch/err")"
}

printf '# two hosts\na slots=8\nb slots=8  # the second\n\n' >"$scratch/even"
echo '# none' >"$scratch/empty"
printf 'a slots=2\nb slots=6\n' >"$scratch/odd"

makes "mpirun -np 3 --oversubscribe --bind-to none $annulus bench --seq 80" -n 3 -- bench --seq 80
makes "mpirun -np 1 --oversubscribe --bind-to none $annulus plan --json a\\ b" -- plan --json "a b"
makes "mpirun -np 16 --hostfile $scratch/even --map-by ppr:8:node --bind-to numa $annulus bench" \
  --hosts "$scratch/even" --bind numa -- bench
makes "mpirun -np 4 --hostfile $scratch/even --map-by slot --bind-to none $annulus bench" \
  --hosts "$scratch/even" -n 4 -- bench
makes "mpirun -np 8 --hostfile $scratch/odd --map-by slot --bind-to none $annulus bench" \
  --hosts "$scratch/odd" -- bench
makes "timeout -k 10 90 mpirun -np 1 --oversubscribe --bind-to none $annulus cost" --limit 90 -- cost
tcp='--mca pml ob1 --mca btl self\,vader\,tcp --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0'
OMP_NUM_THREADS=2 ANNULUS_SEED=1 NCCL_DEBUG=INFO OTHER=1 makes \
  "mpirun -np 16 --hostfile $scratch/even --map-by ppr:8:node --bind-to none -x ANNULUS_SEED -x NCCL_DEBUG -x NCCL_SOCKET_IFNAME -x OMP_NUM_THREADS $tcp $annulus bench" \
  --hosts "$scratch/even" --interface eth0 -- bench
SLURM_JOB_ID=1 SLURM_JOB_NUM_NODES=2 SLURM_NTASKS=16 makes "mpirun -np 16 --bind-to none $annulus bench" -- bench

refused "$run" "no subcommand" -n 4
refused "$run" "-n: '0' is not allowed" -n 0 -- bench
refused "$run" "-n: needs a value" -n -- bench
refused "$run" "--hots" --hots x -- bench
refused "$run" "bench" bench --seq 80
refused "$run" "17 ranks do not fit the 16 slots of 2 hosts" --annulus "$annulus" -n 17 --hosts "$scratch/even" -- bench
refused "$run" "is not a regular file" --annulus "$annulus" --hosts "$scratch/none" -- bench
refused "$run" "names no host" --annulus "$annulus" --hosts "$scratch/empty" -- bench
refused "$run" "--annulus" --annulus "$scratch/even" -- bench
refused "$run" "--bind: 'gpu'" --bind gpu -- bench
refused "$slurm" "no subcommand" --nodes 2
refused "$slurm" "--nodes: '-1' is not allowed" --nodes -1 -- bench
refused "$slurm" "--time: 'soon'" --time soon -- bench
refused "$slurm" "--name" --name "a b" -- bench

# The job's own code comes back.
code=0
"$run" --annulus "$annulus" -n 1 -- bench --seq nothing >"$scratch/out" 2>"$scratch/err" || code=$?
[ "$code" -eq 2 ] || fail "run: exit $code, not the job's 2"
grep -q '^run: mpirun -np 1 ' "$scratch/err" || fail "run: no line before the job"

# What sbatch is given, and that the script is sound.
mkdir "$scratch/bin"
printf '#!/bin/bash\ncat >%q\necho Submitted\n' "$scratch/job" >"$scratch/bin/sbatch"
chmod +x "$scratch/bin/sbatch"
PATH=$scratch/bin:$PATH "$slurm" --nodes 4 --cpus 2 --gpus 8 --partition gpu --sbatch --exclusive --bind numa \
  -- bench --config "my file.cfg" >"$scratch/out" || fail "slurm: exit $?"
bash -n "$scratch/job" || fail "slurm: the script is not sound"
for line in '#SBATCH --nodes=4' '#SBATCH --ntasks-per-node=8' '#SBATCH --cpus-per-task=2' '#SBATCH --gpus-per-node=8' \
  '#SBATCH --partition=gpu' '#SBATCH --exclusive' '#SBATCH --time=60' \
  "exec $run -n 32 --bind numa -- bench --config my\\ file.cfg"; do
  grep -qxF -- "$line" "$scratch/job" || fail "slurm: no '$line' in: $(cat "$scratch/job")"
done
"$slurm" --nodes 4 --cpus 2 --gpus 8 --partition gpu --sbatch --exclusive --bind numa --dry-run \
  -- bench --config "my file.cfg" | cmp -s - "$scratch/job" || fail "slurm: --dry-run prints another script"
command -v sbatch >/dev/null || refused "$slurm" "sbatch not found" -- bench

[ "$failures" -eq 0 ] && echo "all lines are as they should be"
exit $((failures > 0))
