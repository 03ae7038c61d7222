#!/usr/bin/env python3
"""annulus_torch.py on the CPU, with a stand-in for torch: dry_run.py LIBANNULUS

Shows that its structs and calls are those of annulus_c.h where neither PyTorch nor a GPU is.
"""
import array
import math
import os
import sys
import types


class Tensor:
    """Dense f32, as much of torch.Tensor as annulus_torch asks for."""

    def __init__(self, *shape, fill=lambda i: float("nan")):
        self.shape, self.dtype = shape, "float32"
        self.values = array.array("f", [fill(i) for i in range(math.prod(shape))])

    def dim(self):
        return len(self.shape)

    def stride(self):
        return [math.prod(self.shape[i + 1:]) for i in range(self.dim())]

    def data_ptr(self):
        return self.values.buffer_info()[0]


def main():
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    sys.modules["torch"] = types.SimpleNamespace(float32="float32", float16="float16", bfloat16="bfloat16")
    import annulus_torch

    seq, heads, dim, dim_v = 5, 2, 4, 3
    shape, shape_v = (1, seq, heads, dim), (1, seq, heads, dim_v)
    q = Tensor(*shape, fill=lambda i: 0.0)  # equal scores: P of row i is 1 / (i + 1)
    k = Tensor(*shape, fill=lambda i: 0.25 * i)
    v = Tensor(*shape_v, fill=lambda i: i // (heads * dim_v))  # token t holds t
    dout = Tensor(*shape_v, fill=lambda i: 1.0)
    out, dv, dq, dk = Tensor(*shape_v), Tensor(*shape_v), Tensor(*shape), Tensor(*shape)
    lse = Tensor(1, heads, seq)
    library = annulus_torch.load(sys.argv[1])
    attention = library.attention(1, seq, heads, heads, dim, "float32", causal=True, backend="cpu",
                                  kernel="flash1", head_dim_v=dim_v)
    attention.forward(q, k, v, out, lse)
    attention.backward(dout, q, k, v, out, lse, dq, dk, dv)
    if attention.positions(0) != list(range(seq)):
        sys.exit(f"positions: {attention.positions(0)}")
    attention.close()
    try:
        library.attention(1, seq, heads, heads, dim, "float32", backend="cpu", sm_limit=-3)
    except RuntimeError as refused:
        if "sm_limit -3" not in str(refused):
            sys.exit(f"sm_limit -3: {refused}")
    else:
        sys.exit("sm_limit -3 was accepted")

    def near(name, got, wanted):
        if not abs(got - wanted) < 1e-5:
            sys.exit(f"{name}: {got}, not {wanted}")

    for t in range(seq):
        near(f"lse of token {t}", lse.values[t], math.log(t + 1))
        for e in range(heads * dim_v):
            near(f"out of token {t}", out.values[t * heads * dim_v + e], t / 2)
            near(f"dv of token {t}", dv.values[t * heads * dim_v + e], sum(1 / (i + 1) for i in range(t, seq)))
        for e in range(heads * dim):
            near(f"dk of token {t}", dk.values[t * heads * dim + e], 0.0)
    print("dry run: passed")


if __name__ == "__main__":
    main()
