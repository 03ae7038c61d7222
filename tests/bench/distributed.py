#!/usr/bin/env python3
"""Our attention over GPUs beside PyTorch's on one, interleaved in one process a GPU, through annulus_c.h:

    mpirun -np 4 python3 distributed.py LIBANNULUS [--shapes B,S,H,HKV,D ...] [--repeats 10] [--peer cudnn|fa2]

S: tokens of all ranks. Causal, random normal bf16 data that every rank makes from one seed. Each rank holds its shard to
the rows that PyTorch computes of the whole sequence, forward and gradients, before anything is timed. `times` is
PyTorch's time on one GPU over ours on all, of the slowest rank: N would be perfect beside an equal kernel. Needs mpi4py.
"""
import argparse
import statistics
import sys

import annulus_torch
import torch
from interleave import interleaved, sdpa, spread
from mpi4py import MPI

SHAPES = ["1,8192,32,8,128", "1,32768,32,8,128"]
MOST = 0.02  # of a tensor's largest value: roundings of bf16, theirs and ours


class Case:
    def __init__(self, library, shape, peer):
        self.peer = peer
        b, s, h, hk, d = shape
        new = lambda heads: torch.randn(b, s, heads, d, device="cuda", dtype=torch.bfloat16)
        self.whole = [new(h), new(hk), new(hk)]
        self.dout = new(h)
        self.attention = library.attention(b, s, h, hk, d, torch.bfloat16, causal=True)
        rank = MPI.COMM_WORLD.Get_rank()
        self.rows = torch.tensor(self.attention.positions(rank), device="cuda")
        self.q, self.k, self.v, self.slope = (t[:, self.rows].contiguous() for t in (*self.whole, self.dout))
        self.out, self.dq, self.dk, self.dv = (torch.full_like(t, float("nan")) for t in (self.q, self.q, self.k, self.v))
        self.lse = torch.full((b, h, len(self.rows)), float("nan"), device="cuda")
        self.inputs = [t.detach().requires_grad_() for t in self.whole]
        self.theirs = sdpa(peer, *self.inputs, True)

    def forward(self):
        self.attention.forward(self.q, self.k, self.v, self.out, self.lse)

    def backward(self):
        self.attention.backward(self.slope, self.q, self.k, self.v, self.out, self.lse, self.dq, self.dk, self.dv)

    def peer_backward(self):
        return torch.autograd.grad(self.theirs, self.inputs, self.dout, retain_graph=True)

    def worst(self):
        """The largest difference of any tensor, as a share of its largest value."""
        self.forward()
        self.backward()
        ours = (self.out, self.dq, self.dk, self.dv)
        errors = []
        for mine, whole in zip(ours, (self.theirs.detach(), *self.peer_backward())):
            part = whole[:, self.rows].float()
            errors.append(((mine.float() - part).abs().max() / part.abs().max()).item())
        return max(errors) if all(e == e for e in errors) else float("nan")

    def works(self, name):
        if name == "forward":
            return {"ours": self.forward, self.peer: lambda: sdpa(self.peer, *self.whole, True)}
        return {"ours": self.backward, self.peer: self.peer_backward}

    def close(self):
        torch.cuda.synchronize()
        self.attention.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--peer", default="cudnn", choices=["cudnn", "fa2"])
    args = parser.parse_args()
    world = MPI.COMM_WORLD
    torch.cuda.set_device(world.Get_rank() % torch.cuda.device_count())
    torch.manual_seed(0)
    library = annulus_torch.load(args.library, world)
    if world.Get_rank() == 0:
        print(f"# {world.Get_size()} x {torch.cuda.get_device_name()}, torch {torch.__version__}, {args.peer} on one")
        print(f"{'shape':>20} {'pass':>8} {'ours ms':>8} {'peer ms':>8} {'times':>6}  error  spread")
    for text in args.shapes:
        case = Case(library, [int(x) for x in text.split(",")], args.peer)
        # A NaN must not get lost in a maximum.
        errors = world.allgather(case.worst())
        if not all(e < MOST for e in errors):
            sys.exit(f"rank {world.Get_rank()}: tensors differ from PyTorch's by {errors} of their largest values, by rank")
        for name in ("forward", "backward"):
            times = interleaved(case.works(name), args.repeats)
            seconds = {n: world.allreduce(statistics.median(t), op=MPI.MAX) for n, t in times.items()}
            wide = world.allreduce(max(spread(t) for t in times.values()), op=MPI.MAX)
            if world.Get_rank() == 0:
                print(f"{text:>20} {name:>8} {seconds['ours'] * 1e3:8.3f} {seconds[args.peer] * 1e3:8.3f} "
                      f"{seconds[args.peer] / seconds['ours']:6.2f}  {max(errors):.4f} {wide:.3f}", flush=True)
        case.close()


if __name__ == "__main__":
    main()
