"""The programs to start, in order, and their raw output in files: what is measured is kept."""
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

repo = Path(__file__).resolve().parents[2]
LEAST = 5  # seconds without which a step is not started
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


def visible(environment):
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, as it names them; None: all."""
    names = environment.get("CUDA_VISIBLE_DEVICES")
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def bench(args, shapes, seqs):
    """Of shapes with the same heads."""
    check = args.check or ("none" if max(seqs) > LONG else "sample")
    shape = shapes[0]
    return [args.annulus, "bench", "--config", repo / "configs/grids/peers.cfg", "--seq", ",".join(map(str, seqs)),
            "--heads", shape.heads, "--heads-kv", shape.heads_kv, "--head-dim", shape.head_dim, "--backend", args.backend,
            "--warmup", args.warmup, "--iterations", args.repeats, "--check", check, "--quiet", "--json", "-"]


def mpirun(args):
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-x", "NCCL_NVLS_ENABLE=0",
            "-np", args.ranks]


def torchrun(args, script, *more):
    return [args.python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", args.ranks, script, *more]


def ours(args, shapes, round_):
    name = f"{'-'.join(str(s.tokens) for s in shapes)}.{shapes[0].heads}.{shapes[0].heads_kv}"
    text = shapes[0].name if len(shapes) == 1 else f"{len(shapes)} lengths {shapes[0].heads}:{shapes[0].heads_kv}"
    devices = visible(os.environ) or range(args.ranks)
    for gpu in range(args.ranks):
        yield Step(f"ceiling.{name}.{gpu}.{round_}",
                   bench(args, shapes, [s.ceiling_seq(args.ranks) for s in shapes]) + ["--algorithm", "ring"],
                   {"CUDA_VISIBLE_DEVICES": devices[gpu % len(devices)]}, gpu, f"{text} ceiling")
    yield Step(f"annulus.{name}.{round_}",
               mpirun(args) + bench(args, shapes, [s.seq(args.ranks) for s in shapes]) +
               ["--algorithm", ",".join(args.algorithms), "--transport", args.transport], text=f"{text} annulus")


def files_of(folder, shape, round_):
    """Outputs of the ceiling that have this shape, one a GPU."""
    paths = sorted(folder.glob(f"ceiling.*.{shape.heads}.{shape.heads_kv}.*.{round_}.out"))
    return [p for p in paths if str(shape.tokens) in p.name.split(".")[1].split("-")]


def starts(args):
    """Shapes that one start of ours does: one; or with --together those of the same heads and check."""
    if not args.together:
        return [[shape] for shape in args.shapes]
    groups = {}
    for s in args.shapes:
        groups.setdefault((s.heads, s.heads_kv, s.seq(args.ranks) > LONG), []).append(s)
    return list(groups.values())


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
        for shapes in starts(args):
            *ceiling, distributed = ours(args, shapes, round_)
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


def run(groups, out, limit, budget=None):
    """Texts of what failed."""
    failed = []
    end = None if budget is None else time.monotonic() + budget
    for group in groups:
        left = limit if end is None else min(limit, end - time.monotonic())
        if left < LEAST:
            failed.append(f"{group[0].text}: no time was left of {budget:g} s")
            continue
        print(f"== {group[0].text}", file=sys.stderr, flush=True)
        failed += run_group(group, out, left)
    return failed


def run_group(group, out, limit):
    failed = []
    started = []
    for step in group:
        try:
            started.append((step, start(step, out)))
        except OSError as error:
            failed.append(f"{step.text}: {error}")
    end = time.monotonic() + limit
    for step, process in started:
        code = wait(process, max(end - time.monotonic(), 0.1))
        if code != 0:
            why = f"over its limit of {limit:.0f} s" if code == "limit" else f"exit {code}"
            failed.append(f"{step.text}: {why}; see {out / step.file}.err")
    return failed
