#!/usr/bin/env python3
"""Our local attention and PyTorch's back ends, interleaved in one process; prints ratios.

    interleave.py LIBANNULUS [--shapes B,S,H,HKV,D[/DV] ...] [--repeats 20]
                             [--pass forward|backward|both|together] [--kernel NAME] [--fa3 LIBRARY] [--graphs]
                             [--cold] [--beside LIBANNULUS ...] [--deterministic]

Every repetition times each of them once, behind a stream that is held until all is enqueued, with
events around the call; medians on random normal bf16 data. FLOPs: forward 2 B H S^2 (D + DV), backward
2 B H S^2 (3 D + 2 DV), halved when causal. `ratio` is ours over the peer: above 1 we are faster; nan
where the peer does not serve the shape. `spread` is the distance of the quartiles over the median, the
largest of all. --pass both: a line for each pass; together: a line for the two in sequence, timed as one. --fa3:
FlashAttention-3 too (fa3_peer.py). --graphs: each call is captured once, and replays are timed; nan where a peer
cannot be captured, and why on stderr. --cold: a second column for each, `us`: microseconds from the call on an idle GPU
until its result is there, by the host's clock, in repetitions of its own. --beside: other builds of this library, each a
peer named by its file. --deterministic: of ours, the backward that gives the same bits.
"""
import argparse
import math
import pathlib
import statistics
import sys
import time

import annulus_torch
import fa3_peer
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = ["8,2048,16,16,128", "4,4096,16,16,128", "2,8192,16,16,128", "1,16384,16,16,128", "1,32768,16,16,128",
          "8,2048,16,16,64", "2,8192,16,16,64", "1,16384,32,32,64", "1,32768,16,16,64", "1,16384,32,8,128"]
PASSES = {"forward": ["forward"], "backward": ["backward"], "both": ["forward", "backward"], "together": ["together"]}
# Cycles that a stream is held while calls are enqueued: about 0.2 ms, and 1 ms for both passes of PyTorch.
SLEEP = {"forward": 400_000, "backward": 400_000, "together": 2_000_000}
PEERS = {"fa2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def sdpa(peer, q, k, v, causal):
    """On [batch, seq, heads, dim]."""
    with sdpa_kernel([PEERS[peer]]):
        o = torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal,
            enable_gqa=q.shape[2] != k.shape[2])
    return o.transpose(1, 2)


def serves(peer, q, k, v, causal):
    """Whether the peer takes the shape; PyTorch says so by raising."""
    try:
        sdpa(peer, q, k, v, causal)
    except RuntimeError:
        return False
    return True


def rows_of_head(q, k, v, causal, head, rows):
    """The last `rows` queries of a head of the last batch in float32: [rows, dim_v]."""
    kv_head = head // (q.shape[2] // k.shape[2])
    part, keys, values = (t[-1, :, h].float() for t, h in ((q, head), (k, kv_head), (v, kv_head)))
    scores = part[-rows:] @ keys.T / math.sqrt(q.shape[3])
    if causal:
        first = keys.shape[0] - rows
        seen = torch.arange(keys.shape[0], device=q.device) <= torch.arange(rows, device=q.device)[:, None] + first
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ values


def timed(work, cycles):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(cycles)  # the call is enqueued before the device gets to it
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def timed_cold(work, _):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def captured(work, stream):
    """Replays of the call, which the stream is current for."""
    work()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return lambda kept=work: graph.replay()  # what it reads must live: saved tensors of PyTorch's forward


def replays(make):
    """Of the calls that make() gives, less those of peers that cannot be captured. All is done on one stream: PyTorch's
    backward runs on that of its forward."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graphs = {}
    with torch.cuda.stream(stream):
        for name, work in make().items():
            try:
                graphs[name] = captured(work, stream)
            except RuntimeError as error:
                if name == "ours":
                    raise
                print(f"# {name} cannot be captured: {error!r:.200}", file=sys.stderr)
    torch.cuda.synchronize()
    return graphs


def interleaved(works, repeats, cycles, clock=timed):
    """Seconds of each, by repetition."""
    for work in works.values():
        for _ in range(3):
            work()
    times = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(clock(work, cycles))
    return times


def spread(values):
    q = statistics.quantiles(values, n=4)
    return (q[2] - q[0]) / statistics.median(values)


class Case:
    def __init__(self, library, shape, causal, kernel, fa3=None, beside=None, deterministic=False):
        self.fa3 = fa3
        b, s, h, hk, d, dv = shape
        products = 2.0 * b * h * s * s * (0.5 if causal else 1.0)
        self.flops = {"forward": products * (d + dv), "backward": products * (3 * d + 2 * dv)}
        self.flops["together"] = sum(self.flops.values())
        self.causal = causal
        new = lambda heads, dim: torch.randn(b, s, heads, dim, device="cuda", dtype=torch.bfloat16)
        self.q, self.k, self.v, self.dout = new(h, d), new(hk, d), new(hk, dv), new(h, dv)
        self.out, self.dq, self.dk, self.dv = (torch.full_like(t, float("nan")) for t in (self.dout, self.q, self.k, self.v))
        self.peers = [peer for peer in PEERS if serves(peer, self.q, self.k, self.v, causal)]
        self.lse = torch.full((b, h, s), float("nan"), device="cuda")
        attention = lambda of: of.attention(b, s, h, hk, d, torch.bfloat16, causal, kernel=kernel, head_dim_v=dv,
                                            deterministic=deterministic)
        self.beside = {name: attention(of) for name, of in (beside or {}).items()}
        self.ours = attention(library)
        self.ours.forward(self.q, self.k, self.v, self.out, self.lse)

    def check(self):
        """A wrong result is no result: against PyTorch's flash attention, bf16's rounding of either, and against a
        few rows in float32."""
        pairs = []
        if "fa2" in self.peers:
            pairs.append((self.out, sdpa("fa2", self.q, self.k, self.v, self.causal)))
        rows = min(200, self.q.shape[1])
        for head in (0, self.q.shape[2] - 1):
            pairs.append((self.out[-1, -rows:, head],
                          rows_of_head(self.q, self.k, self.v, self.causal, head, rows)))
        for ours, reference in pairs:
            error = (ours.float() - reference.float()).abs().max().item() / reference.float().abs().max().item()
            if not error < 0.02:
                sys.exit(f"out differs from PyTorch's by {error:.3f} of its largest value")

    def leaves(self):
        return [t.detach().requires_grad_() for t in (self.q, self.k, self.v)]

    def forward(self):
        works = {name: lambda of=of: of.forward(self.q, self.k, self.v, self.out, self.lse)
                 for name, of in {"ours": self.ours, **self.beside}.items()}
        for peer in self.peers:
            works[peer] = lambda peer=peer: sdpa(peer, self.q, self.k, self.v, self.causal)
        if self.fa3 and self.fa3.has(self, backward=False):
            works["fa3"] = self.fa3.forward(self)
        return works

    def backward(self):
        works = {name: lambda of=of: of.backward(self.dout, self.q, self.k, self.v, self.out, self.lse,
                                                 self.dq, self.dk, self.dv)
                 for name, of in {"ours": self.ours, **self.beside}.items()}
        for peer in self.peers:
            inputs = self.leaves()
            try:  # head dims may be served in the forward alone
                out = sdpa(peer, *inputs, self.causal)
                torch.autograd.grad(out, inputs, self.dout, retain_graph=True)
            except RuntimeError:
                continue
            works[peer] = lambda inputs=inputs, out=out: torch.autograd.grad(out, inputs, self.dout, retain_graph=True)
        if self.fa3 and self.fa3.has(self, backward=True):
            works["fa3"] = self.fa3.backward(self)
        return works

    def together(self):
        """Of those that have both passes."""
        def in_sequence(first, second):
            return lambda: (first(), second())

        def of_peer(peer, inputs):
            return lambda: torch.autograd.grad(sdpa(peer, *inputs, self.causal), inputs, self.dout)

        forward = self.forward()
        return {name: of_peer(name, self.leaves()) if name in PEERS else in_sequence(forward[name], backward)
                for name, backward in self.backward().items()}

    def close(self):
        torch.cuda.synchronize()
        for of in (self.ours, *self.beside.values()):
            of.close()


def parse(text):
    *sizes, dims = text.split(",")
    dim, _, dim_v = dims.partition("/")
    return [*map(int, sizes), int(dim), int(dim_v or dim)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--pass", dest="which", default="both", choices=PASSES)
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--fa3")
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--beside", nargs="+", default=[])
    parser.add_argument("--deterministic", action="store_true")
    args = parser.parse_args()
    fa3 = fa3_peer.Fa3(args.fa3) if args.fa3 else None
    beside = {pathlib.Path(path).name.split(".")[0].removeprefix("lib"): annulus_torch.load(path) for path in args.beside}
    peers = [*beside, *PEERS, *(["fa3"] if fa3 else [])]
    torch.manual_seed(0)
    library = annulus_torch.load(args.library)
    print(f"# {torch.cuda.get_device_name()}, torch {torch.__version__}; TFLOP/s, kernel {args.kernel}, "
          f"{args.repeats} repeats" + (", replays of graphs" if args.graphs else ""))
    cold_head = f" {'us':>7}" if args.cold else ""
    print(f"{'shape':>20} {'mask':>6} {'pass':>8} {'ours':>7}{cold_head} "
          + " ".join(f"{p:>7}{cold_head} {'ratio':>6}" for p in peers) + "  spread")
    for text in args.shapes:
        for causal in (False, True):
            case = Case(library, parse(text), causal, args.kernel, fa3, beside, args.deterministic)
            case.check()
            for name in PASSES[args.which]:
                make = getattr(case, name)
                works = replays(make) if args.graphs else make()
                times = interleaved(works, args.repeats, SLEEP[name])
                cold = interleaved(works, args.repeats, 0, timed_cold) if args.cold else {}
                rate = {n: case.flops[name] / statistics.median(t) * 1e-12 for n, t in times.items()}
                rate |= {p: math.nan for p in peers if p not in rate}

                def us(who):
                    return f" {statistics.median(cold.get(who, [math.nan])) * 1e6:7.0f}" if args.cold else ""

                columns = " ".join(f"{rate[p]:7.0f}{us(p)} {rate['ours'] / rate[p]:6.3f}" for p in peers)
                print(f"{text:>20} {'causal' if causal else 'full':>6} {name:>8} {rate['ours']:7.0f}{us('ours')} {columns}"
                      f"  {max(spread(t) for t in times.values()):.3f}", flush=True)
            case.close()


if __name__ == "__main__":
    main()
