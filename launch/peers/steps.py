"""The programs to start, in order, and their raw output in files: what is measured is kept."""
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

repo = Path(__file__).resolve().parents[2]
LONG = 262144  # tokens: a check in float64 would take longer than everything else


@dataclass(frozen=True)
class Step:
    file: str        # of its output, without a folder
    command: list
    variables: dict = field(default_factory=dict)
    gpu: int = -1    # not negative: one of several that run at the same time
    text: str = ""   # for people

    def line(self):
        words = [f"{k}={v}" for k, v in self.variables.items()] + [str(w) for w in self.command]
        return " ".join(shlex.quote(word) for word in words)


def bench(args, shape, seq):
    check = args.check or ("none" if seq > LONG else "sample")
    return [args.annulus, "bench", "--config", repo / "configs/grids/peers.cfg", "--seq", seq, "--heads", shape.heads,
            "--heads-kv", shape.heads_kv, "--head-dim", shape.head_dim, "--backend", args.backend, "--warmup",
            args.warmup, "--iterations", args.repeats, "--check", check, "--quiet", "--json", "-"]


def mpirun(args):
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-x", "NCCL_NVLS_ENABLE=0",
            "-np", args.ranks]


def torchrun(args, script, *more):
    return [args.python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", args.ranks, script, *more]


def ours(args, shape, round_):
    for gpu in range(args.ranks):
        yield Step(f"ceiling.{shape.tokens}.{shape.heads}.{shape.heads_kv}.{gpu}.{round_}",
                   bench(args, shape, shape.ceiling_seq(args.ranks)) + ["--algorithm", "ring"], {"CUDA_VISIBLE_DEVICES": gpu}, gpu,
                   f"{shape.name} ceiling")
    yield Step(f"annulus.{shape.tokens}.{shape.heads}.{shape.heads_kv}.{round_}",
               mpirun(args) + bench(args, shape, shape.seq(args.ranks)) +
               ["--algorithm", ",".join(args.algorithms), "--transport", args.transport], text=f"{shape.name} annulus")


def peers(args, round_):
    if args.peers:
        shapes = [f"{s.tokens}:{s.heads}:{s.heads_kv}" for s in args.shapes]
        yield Step(f"peers.{round_}", torchrun(args, repo / "tests/bench/peers.py", "--peers", *args.peers, "--shapes",
                                               *shapes, "--head-dim", args.head_dim, "--repeats", args.repeats),
                   {"NCCL_NVLS_ENABLE": 0}, text="peers")
    if args.peer_script:
        configs = ",".join(f"({s.tokens},{s.heads},{s.heads_kv},{s.head_dim})" for s in args.shapes)
        yield Step(f"script.{round_}", torchrun(args, args.peer_script),
                   {"CFGS": f"[{configs}]", "NCCL_NVLS_ENABLE": 0}, text=Path(args.peer_script).name)


def all_steps(args):
    """Groups of steps that run at the same time: the ceiling on every GPU; else one alone."""
    for round_ in range(args.rounds):
        for step in peers(args, round_):
            yield [step]
        for shape in args.shapes:
            *ceiling, distributed = ours(args, shape, round_)
            yield ceiling
            yield [distributed]


def start(step, out):
    environment = {**os.environ, **{k: str(v) for k, v in step.variables.items()}}
    with open(out / f"{step.file}.out", "w") as stdout, open(out / f"{step.file}.err", "w") as stderr:
        # A group of its own, so that a limit ends its ranks too.
        return subprocess.Popen([str(word) for word in step.command], stdout=stdout, stderr=stderr,
                                stdin=subprocess.DEVNULL, env=environment, start_new_session=True)


def wait(process, limit):
    """The exit code, or "limit". mpirun ends its ranks when it is asked to; killed, it would leave them."""
    try:
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "limit"


def run(groups, out, limit):
    """Texts of what failed."""
    failed = []
    for group in groups:
        print(f"== {group[0].text}", file=sys.stderr, flush=True)
        started = []
        for step in group:
            try:
                started.append((step, start(step, out)))
            except OSError as error:
                failed.append(f"{step.text}: {error}")
        for step, process in started:
            code = wait(process, limit)
            if code != 0:
                why = f"over its limit of {limit} s" if code == "limit" else f"exit {code}"
                failed.append(f"{step.text}: {why}; see {out / step.file}.err")
    return failed
