#!/usr/bin/env python3
"""`annulus attend` on the GPU against the CPU, on the same files: attend_check.py ANNULUS [BACKEND]"""
import os
import subprocess
import sys
import tempfile

import numpy


def main():
    annulus = os.path.abspath(sys.argv[1])
    backend = sys.argv[2] if len(sys.argv) > 2 else "cuda"
    random = numpy.random.default_rng(3)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, heads in (("q", 4), ("k", 2), ("v", 2), ("dout", 4)):
            numpy.save(name, random.standard_normal((1, 513, heads, 64)).astype(numpy.float16))
        for where in ("cpu", backend):
            command = [annulus, "attend", "--backend", where, "--mask", "causal", "--quiet"]
            for name in ("q", "k", "v", "dout"):
                command += [f"--{name}", f"{name}.npy"]
            for name in ("out", "lse", "dq", "dk", "dv"):
                command += [f"--{name}", f"{where}-{name}.npy" if where == "cpu" else f"gpu-{name}.npy"]
            subprocess.run(command, check=True)
        for name in ("out", "lse", "dq", "dk", "dv"):
            ours = numpy.load(f"gpu-{name}.npy").astype(numpy.float64)
            reference = numpy.load(f"cpu-{name}.npy").astype(numpy.float64)
            error = numpy.abs(ours - reference).max() / numpy.abs(reference).max()
            failed += not error < 4e-3
            print(f"{name:>4}: {error:.1e} of the largest value")
    print("attend: " + ("FAILED" if failed else "passed"))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
