#!/usr/bin/env python3
"""launch/bench-peers without a GPU and without PyTorch: its commands, its table from canned outputs whose answers
are known, and a whole run of ours on the CPU.

    peers_test.py SOURCE_DIR ANNULUS [MPIRUN]
"""
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

source, annulus, mpirun = Path(sys.argv[1]), sys.argv[2], sys.argv[3:4]
script = source / "launch/bench-peers"
failures = 0


def expect(condition, text):
    global failures
    if not condition:
        failures += 1
        print("FAILED:", text)


def near(name, got, wanted):
    expect(got is not None and abs(got - wanted) <= 1e-9 * abs(wanted), f"{name}: {got}, not {wanted}")


def call(*arguments, expected=0):
    done = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True, timeout=200)
    expect(done.returncode == expected, f"{arguments}: exit {done.returncode}, not {expected}: {done.stderr[-400:]}")
    return done


def point(tokens, world, algorithm, forward, backward, passed=True):
    timing = lambda s: {"median_s": s} if s else None
    return json.dumps({"problem": {"seq": tokens * world, "heads": 32, "heads_kv": 8, "head_dim": 128},
                       "parallel": {"world": world, "algorithm": algorithm}, "check": {"passed": passed},
                       "timing": {"forward": timing(forward), "backward": timing(backward)}}) + "\n"


def peer(name, tokens, forward, both, error=None):
    return json.dumps({"peer": name, "tokens": tokens, "heads": 32, "heads_kv": 8, "head_dim": 128,
                       "forward_s": forward, "forward_backward_s": both, "error": error}) + "\n"


CANNED = {
    # 4 GPUs, 1024 tokens each: 2 H S^2 D / 4 = 2 * 32 * 4096^2 * 128 / 4 = 3.4359738368e10 FLOPs forward.
    "annulus.1024.32.8.0.out": "warming up\n" + point(1024, 4, "gather", 1e-4, 3e-4) + point(1024, 4, "ring", 4e-4, 6e-4),
    "annulus.1024.32.8.1.out": point(1024, 4, "gather", 3e-4, 5e-4) + point(1024, 4, "ring", 4e-4, 6e-4, passed=False),
    # S / sqrt 4 = 2048 tokens: the same work. The slower GPU counts, and the median of two rounds.
    "peers.0.out": peer("ulysses_cudnn", 1024, 3e-4, 3e-4) + peer("context_parallel", 1024, None, None, "no such API"),
    "script.0.out": "S/GPU=1024 hq=32 hk=8 ulysses nccl cudnn fwd 100  fwd+bwd 200 TFLOP/s/GPU\nS/GPU=1024 hq=32 hk=8 local "
                    "cudnn ceiling fwd 600  fwd+bwd 500 TFLOP/s/GPU\n",
    # Cut off in the middle of a line.
    "annulus.2048.32.8.0.out": point(2048, 4, "gather", 1e-3, None) + '{"problem": {"seq": 81',
}
for gpu, seconds in enumerate((5e-5, 1e-4, 5e-5, 5e-5)):
    for round_ in (0, 1):
        CANNED[f"ceiling.1024.32.8.{gpu}.{round_}.out"] = point(2048, 1, "ring", seconds, seconds)


def write_canned(folder):
    for name, text in CANNED.items():
        (folder / name).write_text(text)
    (folder / "run.json").write_text(json.dumps(
        {"ranks": 4, "head_dim": 128, "rounds": 2, "device": "NVIDIA H200", "shapes": ["1024:32:8", "2048:32:8"],
         "failed": ["2048 32:8 annulus: over its limit of 300 s"]}))


def test_table(folder):
    write_canned(folder)
    done = call("--from", folder, "--json", "-", expected=1)  # steps failed
    report = json.loads(done.stdout)
    expect(report["schema"] == "annulus.peers/1" and report["world"] == 4, "schema or world")
    row = {(r["tokens"], r["name"]): r for r in report["rows"]}
    flops = 3.4359738368e10
    gather, ceiling = row[1024, "annulus gather"], row[1024, "ceiling"]
    near("median of two rounds", gather["forward"]["seconds"], 2e-4)
    near("forward and backward", gather["both"]["seconds"], 6e-4)
    near("TFLOP/s", gather["forward"]["tflops"], flops / 2e-4 * 1e-12)
    near("TFLOP/s of both", gather["both"]["tflops"], 3.5 * flops / 6e-4 * 1e-12)
    near("the slowest GPU", ceiling["forward"]["seconds"], 1e-4)
    near("share", gather["forward"]["share"], 0.5)
    near("ratio", gather["forward"]["over"]["ulysses_cudnn"], 1.5)
    near("ratio of both", gather["both"]["over"]["ulysses_cudnn"], 0.5)
    near("a script's rates", row[1024, "script: ulysses nccl cudnn"]["forward"]["tflops"], 100)
    near("over a script's", gather["forward"]["over"]["script: ulysses nccl cudnn"], flops / 1e14 / 2e-4)
    near("a check that failed is no figure", row[1024, "annulus ring"]["forward"]["seconds"], 4e-4)
    expect("context_parallel" not in gather["forward"]["over"], "a ratio to nothing")
    expect("script: local cudnn ceiling" not in gather["forward"]["over"], "a ratio to a local kernel")
    expect(row[2048, "annulus gather"]["both"]["seconds"] is None, "backward from nowhere")
    expect(row[2048, "annulus gather"]["forward"]["share"] is None, "a share of no ceiling")
    expect(report["behind"] == ["1024 32:8 forward+backward: 0.50 x ulysses_cudnn"] or
           "1024 32:8 forward+backward: 0.50 x ulysses_cudnn" in report["behind"], f"behind: {report['behind']}")
    expect(not any(" forward: " in line and "ulysses_cudnn" in line for line in report["behind"]), "behind, and is not")
    for text in ("1024 32:8 context_parallel: no such API", "1024 32:8 annulus ring: its check failed", "over its limit"):
        expect(any(text in line for line in report["failed"]), f"'{text}' is not among {report['failed']}")
    text = done.stderr
    for words in ("4 x NVIDIA H200", "x 1: times as fast as", "annulus gather", "0.500", "1.50", "behind: ", "failed: "):
        expect(words in text, f"the table does not say '{words}':\n{text}")
    # The text alone goes to standard output, the JSON to its file.
    done = call("--from", folder, "--json", folder / "table.json", expected=1)
    expect(done.stdout == text, "another table")
    expect(json.loads((folder / "table.json").read_text()) == report, "another report")


def test_dry_run():
    done = call("--dry-run", "--ranks", 2, "--shapes", "4096:32:8", "--rounds", 2, "--peer-script", "attention.py")
    lines = done.stdout.splitlines()
    expect(len(lines) == 2 * (2 + 2 + 1 + 1), f"{len(lines)} lines: {done.stdout}")
    for words in ("--seq 8192 --heads 32", "--seq 5760", "CUDA_VISIBLE_DEVICES=1", "--algorithm gather,ulysses,ring",
                  "torch.distributed.run --standalone --nproc-per-node 2", "'CFGS=[(4096,32,8,128)]'", "tests/bench/peers.py"):
        expect(words in done.stdout, f"the dry run does not say '{words}'")
    expect("4096:32" in call("--dry-run").stdout, "the grid")
    done = call("--dry-run", "--shapes", "128:3:2", expected=2)
    expect("128:3:2; allowed: TOKENS:HEADS:HEADS_KV" in done.stderr, done.stderr)


def test_together():
    """One start for the shapes of the same heads; long ones, which are not checked, apart."""
    done = call("--dry-run", "--together", "--ranks", 2, "--shapes", "1024:32:8", "2048:32:8", "1024:8:8", "1048576:32:8")
    lines = [line for line in done.stdout.splitlines() if "bench --config" in line]
    expect(len(lines) == 3 * 3, f"{len(lines)} starts of ours: {done.stdout}")
    expect(sum("--seq 2048,4096 --heads 32" in line for line in lines) == 1, "two lengths in one start")
    expect(sum("--seq 1408,2816 --heads 32" in line for line in lines) == 2, "their ceilings, on each GPU")
    expect(sum("--seq 2097152 --heads 32" in line and "--check none" in line for line in lines) == 1, "a long one")


def test_places(folder):
    """From the archive's tree, with annulus on $PATH, and the GPUs that are left to it."""
    for name in ("launch/bench-peers", "tests/bench/peers.py", "configs/grids/peers.cfg",
                 *(f"launch/peers/{f.name}" for f in (source / "launch/peers").glob("*.py"))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, folder / name)
    (folder / "bin").mkdir()
    (folder / "bin/annulus").symlink_to(annulus)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "5,3"}
    done = subprocess.run([sys.executable, folder / "launch/bench-peers", "--dry-run", "--ranks", "2", "--shapes", "64:4:2"],
                          capture_output=True, text=True, env=environment, timeout=60)
    for words in (str(folder / "bin/annulus"), "CUDA_VISIBLE_DEVICES=5 ", "CUDA_VISIBLE_DEVICES=3 ",
                  str(folder / "configs/grids/peers.cfg"), str(folder / "tests/bench/peers.py")):
        expect(words in done.stdout, f"the archive's tree: no '{words}' in {done.stdout}{done.stderr}")


def test_our_own(folder):
    """With programs as they are now: `annulus bench` still prints what is read."""
    if not mpirun:
        return
    done = call("--ranks", 2, "--shapes", "128:4:2", "--head-dim", 16, "--backend", "cpu", "--peers", "--repeats", 2,
                "--annulus", annulus, "--out", folder / "run", "--json", "-")
    report = json.loads(done.stdout)
    names = {row["name"] for row in report["rows"] if row["both"]["share"]}
    expect(names == {"annulus gather", "annulus ulysses", "annulus ring", "ceiling"}, f"rows {names}")
    done = call("--ranks", 2, "--shapes", "128:4:2", "256:4:2", "--head-dim", 16, "--backend", "cpu", "--peers", "--repeats", 2,
                "--annulus", annulus, "--out", folder / "together", "--together", "--json", "-")
    both = {(row["tokens"], row["name"]) for row in json.loads(done.stdout)["rows"] if row["both"]["share"]}
    expect(both == {(tokens, name) for tokens in (128, 256) for name in names}, f"together: {both}")
    done = call("--ranks", 2, "--shapes", "128:4:2", "--backend", "cpu", "--peers", "--annulus", annulus, "--out",
                folder / "late", "--budget", 0, expected=1)
    expect("failed: 128 4:2 annulus: no time was left of 0 s" in done.stdout, f"no budget: {done.stdout}")
    done = call("--ranks", 2, "--shapes", "128:4:2", "--head-dim", 16, "--backend", "cpu", "--peers", "--repeats", 2,
                "--annulus", folder / "none", "--out", folder / "lost", expected=1)
    expect("failed: 128 4:2 ceiling: " in done.stdout, f"nothing failed: {done.stdout}")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "canned").mkdir()
        test_table(folder / "canned")
        test_dry_run()
        test_together()
        (folder / "tree").mkdir()
        test_places(folder / "tree")
        test_our_own(folder)
        py_compile.compile(str(source / "tests/bench/peers.py"), cfile=str(folder / "peers.pyc"), doraise=True)
        call("--from", folder, expected=2)
    print(f"{failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
