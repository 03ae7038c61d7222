#!/usr/bin/env python3
"""A short table of a session's benchmarks: table.py BENCH.jsonl

TFLOP/s a GPU of the slowest rank by exact FLOPs, and their share of the last line labelled "ceiling"
(the local kernel on every GPU at once) before them; microseconds of the host a call and a graph's
replay, each right behind another one; memory measured over planned.
"""
import json
import sys


def number(value, digits=0, scale=1.0):
    return "-" if value is None else f"{value * scale:.{digits}f}"


def passes(point, ceiling):
    cells = []
    for name in ("forward", "backward"):
        timing = point["timing"][name]
        rate = point["throughput"][f"{name}_tflops_per_rank"] if timing else None
        best = ceiling["throughput"][f"{name}_tflops_per_rank"] if ceiling else 0
        share = 100.0 * rate / best if rate and best and point is not ceiling else None
        hidden = timing or {}
        cells += [number(rate), number(share), number(hidden.get("host_again_median_s"), 0, 1e6),
                  number(hidden.get("graph_host_again_median_s"), 0, 1e6), number(hidden.get("cold_median_s"), 2, 1e3),
                  number(hidden.get("graph_median_s"), 2, 1e3), number(hidden.get("median_s"), 2, 1e3)]
    return cells


def counted(point):
    """What the GPU's counters say beside the kernels' own count."""
    executed, hardware = point["cost"]["executed"], point["cost"]["hardware"]
    if not hardware:
        return None
    if "unavailable" in hardware:
        asked = point["label"].startswith("counters")
        return f"counters unavailable: {hardware['unavailable']}" if asked else None
    ops, bytes_read = hardware["flops_rank_layer"], hardware.get("hbm_bytes_rank_layer")
    return (f"forward: executed {max(executed['flops_rank_layer']):.4g}, tensor operations {max(ops):.4g}, DRAM "
            f"{max(bytes_read) / 2**20:.0f} MiB" if bytes_read else f"forward: tensor operations {max(ops):.4g}")


def main():
    heads = ["TFLOP/s", "%", "host us", "replay us", "cold ms", "graph ms", "ms"]
    print(f"{'':<26}{'forward':<70}backward")
    print(f"{'':<26}" + "".join(f"{h:>10}" for h in heads + heads) + f"{'transfers':>11}{'MiB':>8}{'/planned':>9}  check")
    ceiling, counters = None, []
    for line in open(sys.argv[1]):
        point = json.loads(line)
        if point["label"] == "ceiling":
            ceiling = point
        memory = point["memory"]
        measured, planned = memory["measured_peak_bytes"], memory["planned_peak_bytes"]
        check = point["check"]
        print(f"{point['label'][:25]:<26}" + "".join(f"{c:>10}" for c in passes(point, ceiling)) +
              f"{point['comm']['forward_transfers_per_rank']:>11}{measured / 2**20:>8.0f}{measured / max(planned, 1):>9.3f}  " +
              ("none" if check is None else "passed" if check["passed"] else "FAILED"))
        if counted(point):
            counters.append(f"{point['label']}: {counted(point)}")
    print("\n".join(counters))


if __name__ == "__main__":
    main()
