#!/usr/bin/env python3
"""segments and custom masks by command: `attend` on tensors of random shapes against attention written
here from its definition, in float64, for every algorithm; counts of `mask`; `bench` with its own check.

    masks_test.py ANNULUS [MPIRUN]
"""
import array
import json
import math
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

BOUND = 2e-5  # of f32; a wrong pair is off by 1e-2 and more
failures = 0


def fail(text):
    global failures
    failures += 1
    print("FAILED:", text)


def write_npy(path, descr, shape, data):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)


def read_npy(path):
    data = path.read_bytes()
    begin = 10 + struct.unpack("<H", data[8:10])[0]
    values = array.array("f")
    values.frombytes(data[begin:])
    return values


class Problem:
    """Inputs of one random shape, their mask as a function of positions, and what must come out."""

    def __init__(self, seed, kind):
        r = random.Random(seed)
        self.seq, self.heads_kv, self.dim = r.randint(2, 40), r.randint(1, 2), 8
        self.seq_kv = self.seq if r.random() < 0.5 else r.randint(2, 40)
        self.heads = self.heads_kv * r.randint(1, 2)
        density = r.random()
        self.dense = [[r.random() < density for _ in range(self.seq_kv)] for _ in range(self.seq)]
        self.ids, self.ids_kv = self.random_ids(r, self.seq), self.random_ids(r, self.seq_kv)
        self.kind = kind
        rows = lambda n, h: [[[r.gauss(0, 1) for _ in range(self.dim)] for _ in range(h)] for _ in range(n)]
        f32 = lambda t: [[[struct.unpack("f", struct.pack("f", x))[0] for x in d] for d in h] for h in t]
        self.q, self.dout = f32(rows(self.seq, self.heads)), f32(rows(self.seq, self.heads))
        self.k, self.v = f32(rows(self.seq_kv, self.heads_kv)), f32(rows(self.seq_kv, self.heads_kv))

    @staticmethod
    def random_ids(r, count):
        ids = []
        for _ in range(count):
            ids.append(r.randint(-1, 2) if not ids or r.random() < 0.3 else ids[-1])
        return ids

    def sees(self, i, j):
        terms = self.kind.split("+")
        return (("custom" not in terms or self.dense[i][j])
                and ("segments" not in terms or (self.ids[i] == self.ids_kv[j] >= 0))
                and ("causal" not in terms or j <= i + self.seq_kv - self.seq))

    def pairs(self):
        return sum(self.sees(i, j) for i in range(self.seq) for j in range(self.seq_kv))

    def write(self, folder):
        for name, t in (("q", self.q), ("k", self.k), ("v", self.v), ("dout", self.dout)):
            flat = array.array("f", [x for token in t for head in token for x in head])
            write_npy(folder / f"{name}.npy", "<f4", (1, len(t), len(t[0]), self.dim), flat.tobytes())
        bits = bytes(x for row in self.dense for x in row)
        write_npy(folder / "mask.npy", "|b1", (self.seq, self.seq_kv), bits)
        (folder / "ids.txt").write_text("# queries\n" + "\n".join(map(str, self.ids)) + "\n")

    def options(self, folder):
        options = ["--mask", self.kind]
        if "custom" in self.kind:
            options += ["--mask-file", str(folder / "mask.npy")]
        if "segments" in self.kind:
            options += ["--segments", f"@{folder / 'ids.txt'}", "--segments-kv=" + ",".join(map(str, self.ids_kv))]
        return options

    def truth(self):
        n, m, group = self.seq, self.seq_kv, self.heads // self.heads_kv
        dot = lambda a, b: math.fsum(x * y for x, y in zip(a, b))
        zeros = lambda t: [[[0.0] * self.dim for _ in head] for head in t]
        out, dq, dk, dv = zeros(self.q), zeros(self.q), zeros(self.k), zeros(self.v)
        lse = [[-math.inf] * n for _ in range(self.heads)]
        scale = 1 / math.sqrt(self.dim)
        for h in range(self.heads):
            g = h // group
            for i in range(n):
                keys = [j for j in range(m) if self.sees(i, j)]
                if not keys:
                    continue
                s = [scale * dot(self.q[i][h], self.k[j][g]) for j in keys]
                lse[h][i] = max(s) + math.log(math.fsum(math.exp(x - max(s)) for x in s))
                p = [math.exp(x - lse[h][i]) for x in s]
                for w, j in zip(p, keys):
                    for d in range(self.dim):
                        out[i][h][d] += w * self.v[j][g][d]
                delta = dot(out[i][h], self.dout[i][h])
                for w, j in zip(p, keys):
                    ds = scale * w * (dot(self.dout[i][h], self.v[j][g]) - delta)
                    for d in range(self.dim):
                        dq[i][h][d] += ds * self.k[j][g][d]
                        dk[j][g][d] += ds * self.q[i][h][d]
                        dv[j][g][d] += w * self.dout[i][h][d]
        flat = lambda t: [x for token in t for head in token for x in head]
        return {"out": flat(out), "dq": flat(dq), "dk": flat(dk), "dv": flat(dv), "lse": [x for h in lse for x in h]}


def call(what, command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{what}: exit {done.returncode}: {done.stderr.strip()}")
    return done


def compare(what, truth, folder):
    for name, expected in truth.items():
        got = read_npy(folder / f"{name}.npy")
        if len(got) != len(expected):
            fail(f"{what}: {name} has {len(got)} values, not {len(expected)}")
            continue
        most = max((abs(x) for x in expected if math.isfinite(x)), default=0) or 1
        for got_x, x in zip(got, expected):
            if not (got_x == x or abs(got_x - x) <= BOUND * most):
                fail(f"{what}: {name} is {got_x}, should be {x}")
                break


def attend(annulus, mpirun, seed, kind, folder):
    problem = Problem(seed, kind)
    problem.write(folder)
    truth = problem.truth()
    options = problem.options(folder)
    tensors = [x for name in ("q", "k", "v", "dout") for x in (f"--{name}", str(folder / f"{name}.npy"))]
    tensors += [x for name in ("out", "lse", "dq", "dk", "dv") for x in (f"--{name}", str(folder / f"{name}.npy"))]
    shape = f"seed {seed}, {kind}, seq {problem.seq}, seq_kv {problem.seq_kv}, heads {problem.heads}:{problem.heads_kv}"
    for algorithm in ("ring", "gather", "ulysses"):
        local = ["--transport", "local", "--world", "3", "--algorithm", algorithm]
        call(f"{shape}, {algorithm}", [annulus, "attend", "--quiet"] + tensors + options + local)
        compare(f"{shape}, {algorithm}", truth, folder)
    if mpirun and seed % 4 == 0:
        call(f"{shape}, mpirun", [mpirun, "-np", "2", annulus, "attend", "--quiet"] + tensors + options)
        compare(f"{shape}, mpirun", truth, folder)
    lengths = ["--seq", str(problem.seq), "--seq-kv", str(problem.seq_kv)]
    done = call(f"{shape}, mask", [annulus, "mask", "--json", "-", "--tile", "8"] + lengths + options)
    if done.returncode == 0 and json.loads(done.stdout)["unmasked_pairs"] != problem.pairs():
        fail(f"{shape}: mask counts {done.stdout}, there are {problem.pairs()} pairs")
    for algorithm in ("ring", "gather"):
        call(f"{shape}, bench {algorithm}",
             [annulus, "bench", "--quiet", "--check", "full", "--iterations", "1", "--warmup", "0", "--heads", "2",
              "--transport", "local", "--world", "2", "--algorithm", algorithm] + lengths + options)


def main():
    annulus, mpirun = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    seed = 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            for kind in ("custom", "segments", "causal+segments", "custom+segments+causal"):
                attend(annulus, mpirun, seed, kind, Path(folder))
                seed += 1
    print(f"{seed} problems, {failures} failures")
    return 1 if failures else 0


sys.exit(main())
