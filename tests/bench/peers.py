#!/usr/bin/env python3
"""Sequence-parallel attention that PyTorch's users have, timed on all GPUs of a host, one line of JSON a figure:

    python3 -m torch.distributed.run --standalone --nproc-per-node 8 tests/bench/peers.py \
        --peers ulysses_cudnn context_parallel --shapes 8192:32:8 4096:32:8

ulysses_cudnn      heads are scattered and tokens gathered by NCCL's all-to-all, then cuDNN's attention
                   (Ulysses: Jacobs et al. 2023); where there are fewer key/value heads than ranks they
                   are repeated
context_parallel   torch.distributed.tensor.experimental.context_parallel, all-gather, cuDNN inside

Causal, bf16, random normal data. In-stream: everything is enqueued behind a sleeping stream and a tiny
all-reduce, which is a barrier on the device; events around the call; the slowest rank; medians. A shape
that a peer cannot do is a line with its error. launch/bench-peers starts this and makes the table.
"""
import argparse
import json
import statistics

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKEND = SDPBackend.CUDNN_ATTENTION


def attention(q, k, v):
    """cuDNN's, causal, on [batch, heads, seq, dim]."""
    with sdpa_kernel([BACKEND]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


class Exchange(torch.autograd.Function):
    """All-to-all of equal parts along the first dimension; its own gradient."""

    @staticmethod
    def forward(ctx, x):
        received = torch.empty_like(x)
        dist.all_to_all_single(received, x)
        return received

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()  # else the empty one would have its strides
        returned = torch.empty_like(gradient)
        dist.all_to_all_single(returned, gradient)
        return returned


def scatter_heads(x, world):
    """[1, tokens, heads, dim] of this rank's tokens -> [1, heads / world, all tokens, dim]."""
    _, tokens, heads, dim = x.shape
    by_rank = x.reshape(tokens, world, heads // world, dim).transpose(0, 1).contiguous()
    return Exchange.apply(by_rank).reshape(1, world * tokens, heads // world, dim).transpose(1, 2)


def gather_heads(x, world):
    """The way back."""
    _, heads, tokens, dim = x.shape
    by_rank = x.transpose(1, 2).reshape(world, tokens // world, heads, dim).contiguous()
    return Exchange.apply(by_rank).transpose(0, 1).reshape(1, tokens // world, world * heads, dim)


def ulysses(q, k, v, world):
    repeats = max(1, world // k.shape[2])
    if repeats > 1:
        k, v = (t.repeat_interleave(repeats, dim=2) for t in (k, v))
    return gather_heads(attention(*(scatter_heads(t, world) for t in (q, k, v))), world)


def context_parallel_api():
    """It moved between releases of PyTorch."""
    try:
        from torch.distributed.tensor.experimental import context_parallel
        from torch.distributed.tensor.experimental._attention import set_rotate_method
    except ImportError:
        from torch.distributed.tensor.experimental._context_parallel._attention import (context_parallel,
                                                                                          set_rotate_method)
    return context_parallel, set_rotate_method


class Bench:
    def __init__(self, args):
        self.args = args
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.world = dist.get_world_size()
        self.tiny = torch.zeros(1, device=self.device)

    def random(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=torch.bfloat16)

    def once(self, work):
        dist.barrier()
        torch.cuda.synchronize()
        torch.cuda._sleep(self.args.sleep_cycles)
        dist.all_reduce(self.tiny)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        slowest = torch.tensor([begin.elapsed_time(end)], device=self.device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        return slowest.item() * 1e-3

    def median(self, work):
        for _ in range(self.args.warmup):
            work()
        return statistics.median(self.once(work) for _ in range(self.args.repeats))

    def both(self, call, inputs, gradient):
        """Seconds of forward, and of forward and backward."""
        with torch.no_grad():
            forward = self.median(lambda: call(*inputs))
        leaves = [t.detach().requires_grad_() for t in inputs]
        return forward, self.median(lambda: torch.autograd.grad(call(*leaves), leaves, gradient))

    def check_ulysses(self, heads=16, heads_kv=8, dim=64, tokens=128):
        """A wrong result is no result: against attention over all tokens on this GPU, bf16's rounding allowed."""
        heads, heads_kv = heads * self.world, heads_kv * self.world
        parts = [self.random(1, tokens, h, dim) for h in (heads, heads_kv, heads_kv)]
        whole = []
        for part in parts:
            all_parts = [torch.empty_like(part) for _ in range(self.world)]
            dist.all_gather(all_parts, part)
            whole.append(torch.cat(all_parts, dim=1).transpose(1, 2))
        begin = dist.get_rank() * tokens
        wanted = attention(*whole).transpose(1, 2)[:, begin:begin + tokens].float()
        error = (ulysses(*parts, self.world).float() - wanted).abs().max() / wanted.abs().max()
        dist.all_reduce(error, op=dist.ReduceOp.MAX)
        if not error.item() < 0.02:
            raise SystemExit(f"ulysses_cudnn differs from attention on one GPU by {error.item():.3f} of its largest value")

    def ulysses_cudnn(self, tokens, heads, heads_kv, dim):
        q, gradient = (self.random(1, tokens, heads, dim) for _ in range(2))
        k, v = (self.random(1, tokens, heads_kv, dim) for _ in range(2))
        return self.both(lambda *t: ulysses(*t, self.world), (q, k, v), gradient)

    def context_parallel(self, tokens, heads, heads_kv, dim):
        context_parallel, set_rotate_method = context_parallel_api()
        set_rotate_method("allgather")
        mesh = init_device_mesh("cuda", (self.world,))
        seq = tokens * self.world
        q = self.random(1, heads, seq, dim)
        k, v = (self.random(1, heads_kv, seq, dim) for _ in range(2))
        # Inside, the buffers hold this rank's part.
        with context_parallel(mesh, buffers=(q, k, v), buffer_seq_dims=(2, 2, 2)):
            return self.both(attention, (q, k, v), torch.randn_like(q))

    def figure(self, peer, shape):
        line = {"peer": peer, **dict(zip(("tokens", "heads", "heads_kv", "head_dim"), shape)), "world": self.world,
                "forward_s": None, "forward_backward_s": None, "error": None, "torch": torch.__version__}
        attempts = [shape]
        if peer == "context_parallel" and shape[1] != shape[2]:
            # Some releases know no grouped heads there: every query head with its own copy, then.
            attempts.append((shape[0], shape[1], shape[1], shape[3]))
        for attempt in attempts:
            try:
                line["forward_s"], line["forward_backward_s"] = getattr(self, peer)(*attempt)
                line["heads_kv_used"], line["error"] = attempt[2], None
                break
            except Exception as error:  # noqa: BLE001: a peer's failure is its figure
                line["error"] = f"{type(error).__name__}: {error}"[:200]
        torch.cuda.empty_cache()
        return line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", nargs="+", default=["ulysses_cudnn", "context_parallel"])
    parser.add_argument("--shapes", nargs="+", default=["8192:32:8"], help="TOKENS:HEADS:HEADS_KV, tokens a GPU")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--sleep-cycles", type=int, default=20_000_000, help="about 10 ms: until all is enqueued")
    args = parser.parse_args()
    dist.init_process_group("nccl")
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    torch.manual_seed(dist.get_rank())
    bench = Bench(args)
    if "ulysses_cudnn" in args.peers:
        bench.check_ulysses()
    for text in args.shapes:
        for peer in args.peers:
            line = bench.figure(peer, (*(int(word) for word in text.split(":")), args.head_dim))
            if dist.get_rank() == 0:
                print(json.dumps(line), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
