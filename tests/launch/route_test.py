#!/usr/bin/env python3
"""`annulus route`, whole: files in, the command as a process, files and JSON out, against routers written
here from their definitions.

    route_test.py ANNULUS [MPIRUN]
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

failures = 0


def fail(text):
    global failures
    failures += 1
    print("FAILED:", text)


def write_npy(path, shape, values, descr="<f4"):
    dims = f"({shape[0]},)" if len(shape) == 1 else str(tuple(shape))
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {dims}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.array("f", values).tobytes())


def read_npy(path, descr, kind):
    data = path.read_bytes()
    length = struct.unpack("<H", data[8:10])[0]
    header = eval(data[10:10 + length])  # the dict that NumPy reads
    if header["descr"] != descr or header["fortran_order"] or (10 + length) % 64:
        fail(f"{path.name}: header {header}")
    return header["shape"], list(array.array(kind, data[10 + length:]))


def best(scores, k):
    return sorted(range(len(scores)), key=lambda e: (-scores[e], e))[:k]


def softmax(z):
    most = max(z)
    p = [math.exp(x - most) for x in z]
    return [x / sum(p) for x in p]


def expected(router, z, bias, k, groups=8, kept=4):
    """(indices, weights) of one token."""
    if router in ("mixtral", "qwen3"):
        chosen = best(z, k)
        return chosen, softmax([z[e] for e in chosen])
    if router in ("switch", "qwen3 raw"):
        p = softmax(z)
        chosen = best(z, k)
        return chosen, [p[e] for e in chosen]
    s = [1 / (1 + math.exp(-x)) for x in z]
    u = [a + b for a, b in zip(s, bias)]
    size = len(z) // groups
    score = [sum(sorted(u[g * size:(g + 1) * size])[-2:]) for g in range(groups)]
    stay = best(score, kept)
    masked = [x if e // size in stay else -math.inf for e, x in enumerate(u)]
    chosen = best(masked, k)
    total = sum(s[e] for e in chosen) + 1e-20
    return chosen, [2.5 * s[e] / total for e in chosen]


def call(annulus, *words, launcher=()):
    return subprocess.run([*launcher, annulus, "route", *map(str, words)], capture_output=True, text=True)


def check_router(annulus, folder, router, tokens, experts, k, words=(), groups=8, kept=4):
    rng = random.Random(f"{router} {tokens} {experts} {k}")
    # steps of 1/64 in a random order: no two scores of a token are near
    logits = [[(x - experts / 2) / 64 for x in rng.sample(range(experts), experts)] for _ in range(tokens)]
    bias = [rng.choice((-0.7, -0.2, 0.0, 0.3)) for _ in range(experts)] if router == "deepseek_v3" else []
    bias = list(array.array("f", bias))
    write_npy(folder / "z.npy", (tokens, experts), [x for row in logits for x in row])
    command = ["--router", router.split()[0], "--logits", folder / "z.npy", "--indices", folder / "i.npy",
               "--weights", folder / "w.npy", "--json", folder / "r.json", *words]
    if bias:
        write_npy(folder / "b.npy", (experts,), bias)
        command += ["--bias", folder / "b.npy"]
    run = call(annulus, *command)
    what = f"{router} {tokens}x{experts}"
    if run.returncode != 0:
        return fail(f"{what}: exit {run.returncode}: {run.stderr.strip()}")
    report = json.loads((folder / "r.json").read_text())
    shape, indices = read_npy(folder / "i.npy", "<i4", "i")
    weight_shape, weights = read_npy(folder / "w.npy", "<f4", "f")
    if tuple(shape) != (tokens, k) or tuple(weight_shape) != (tokens, k):
        fail(f"{what}: shapes {shape} {weight_shape}")
    if report["schema"] != "annulus.route/1" or sum(report["indices"], []) != indices:
        fail(f"{what}: JSON and indices differ")
    if sum(report["weights"], []) != weights:
        fail(f"{what}: JSON and weights differ")
    if report["counts"] != [indices.count(e) for e in range(experts)]:
        fail(f"{what}: counts")
    for t in range(tokens):
        chosen, exact = expected(router, logits[t], bias, k, groups, kept)
        got = indices[t * k:(t + 1) * k]
        if got != chosen:
            return fail(f"{what}: token {t}: {got}, not {chosen}")
        if max(abs(a - b) for a, b in zip(weights[t * k:(t + 1) * k], exact)) > 1e-6:
            return fail(f"{what}: token {t}: weights {weights[t * k:(t + 1) * k]}, not {exact}")
    return None


def check_corners(annulus, folder):
    nan, inf = math.nan, math.inf
    write_npy(folder / "z.npy", (3, 4), [1, nan, 0, 2, inf, 0, 1, 2, 0, 0, 0, 0])
    run = call(annulus, "--router", "mixtral", "--logits", folder / "z.npy", "--json", "-")
    report = json.loads(run.stdout)
    if report["indices"] != [[3, 0], [0, 3], [0, 1]] or report["weights"] != [[0, 0], [0, 0], [0.5, 0.5]]:
        fail(f"NaN, inf, ties: {report['indices']} {report['weights']}")
    if report["bad_tokens"] != 2 or "WARNING" not in run.stderr:
        fail(f"bad tokens: {report['bad_tokens']}, {run.stderr}")
    write_npy(folder / "z.npy", (0, 4), [])
    report = json.loads(call(annulus, "--router", "switch", "--logits", folder / "z.npy", "--json", "-").stdout)
    if report["indices"] != [] or report["counts"] != [0] * 4 or report["max_over_mean"] != 1:
        fail(f"no tokens: {report}")
    write_npy(folder / "z.npy", (4, 2), [1, 0] * 4)
    report = json.loads(call(annulus, "--router", "switch", "--logits", folder / "z.npy", "--json", "-",
                             "--capacity-factor", "1", "--drop-policy", "position").stdout)
    if report["indices"] != [[0], [0], [-1], [-1]] or report["dropped"] != 2 or report["counts"] != [2, 0]:
        fail(f"capacity: {report}")


def main():
    annulus = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_router(annulus, folder, "deepseek_v3", 17, 256, 8)
        check_router(annulus, folder, "deepseek_v3", 5, 64, 6, ("--top-k", 6))
        check_router(annulus, folder, "deepseek_v3", 3, 15, 2, ("--top-k", 2, "--groups", 3, "--groups-kept", 1), 3, 1)
        check_router(annulus, folder, "mixtral", 33, 8, 2)
        check_router(annulus, folder, "mixtral", 1, 7, 3, ("--top-k", "3"))
        check_router(annulus, folder, "qwen3", 9, 128, 8)
        check_router(annulus, folder, "qwen3 raw", 9, 128, 8, ("--renormalize", "false"))
        check_router(annulus, folder, "switch", 11, 13, 1)
        check_corners(annulus, folder)
        for mpirun in sys.argv[2:3]:
            write_npy(folder / "z.npy", (1, 2), [1, 0])
            run = call(annulus, "--router", "switch", "--logits", folder / "z.npy", "--json", "-", launcher=(mpirun, "-np", "3"))
            if run.returncode != 0 or run.stdout.count("annulus.route/1") != 1:
                fail(f"mpirun: exit {run.returncode}: {run.stdout} {run.stderr}")
    print(f"route: {failures} failures")
    return 1 if failures else 0


sys.exit(main())
