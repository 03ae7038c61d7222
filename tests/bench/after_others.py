#!/usr/bin/env python3
"""Does a launch cost more after something else? `after_others.py ./libannulus.so`, on one GPU.

Times our forward and cuDNN's behind a held stream: after itself, after 256 MB were written (a cold
L2), after small launches of other kernels (cold code), and after both, in either order. Medians, us.
"""
import statistics
import sys

import annulus_torch
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = ((8, 512), (8, 1024), (8, 2048), (4, 4096))  # batch, seq
HEADS, DIM, REPEATS = 16, 128, 15


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def sdpa(backend, q, k, v):
    with sdpa_kernel([backend]):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def timed(work, before):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    work()
    work()
    torch.cuda._sleep(600_000)
    for other in before:
        other()
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3


def others(library):
    """What runs between: writes, and small launches of other kernels, for us and for cuDNN."""
    junk = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    tiny = [normal(1, 1, DIM, DIM) for _ in range(3)]
    q, k, v, out = (normal(1, DIM, 1, DIM) for _ in range(4))
    lse = torch.empty(1, 1, DIM, device="cuda")
    ours = library.attention(1, DIM, 1, 1, DIM, torch.bfloat16, False)

    def peers():
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            sdpa(backend, *tiny)

    return junk.zero_, peers, lambda: ours.forward(q, k, v, out, lse)


def main():
    library = annulus_torch.load(sys.argv[1])
    writes, peers, ours_small = others(library)
    for batch, seq in SHAPES:
        q, k, v = (normal(batch, seq, HEADS, DIM) for _ in range(3))
        out, lse = torch.empty_like(q), torch.empty(batch, HEADS, seq, device="cuda")
        ours = library.attention(batch, seq, HEADS, HEADS, DIM, torch.bfloat16, False)
        heads_first = [t.transpose(1, 2) for t in (q, k, v)]
        works = {"ours": (lambda: ours.forward(q, k, v, out, lse), peers),
                 "cudnn": (lambda: sdpa(SDPBackend.CUDNN_ATTENTION, *heads_first), ours_small)}
        for name, (work, code) in works.items():
            kinds = {"itself": [], "writes": [writes], "code": [code], "writes, code": [writes, code],
                     "code, writes": [code, writes]}
            row = {kind: statistics.median(timed(work, before) for _ in range(REPEATS)) for kind, before in kinds.items()}
            print(f"{batch} x {seq} {name:6}" + ", ".join(f" after {kind} {us:.1f}" for kind, us in row.items()))
        torch.cuda.synchronize()
        ours.close()


if __name__ == "__main__":
    main()
