"""What one call of ours costs its host and puts on a GPU: `python3 host_calls.py ./libannulus.so`.

For forward and backward of a few shapes on one GPU: host time of an eager call and of a graph's
replay (no profiler), then under torch.profiler the CUDA API calls of one call with their host time,
and what ran on the device with begin, duration and the gap before it. Times in us; the profiler adds
some to each API call.
"""
import argparse
import time

import torch
from torch.profiler import ProfilerActivity, profile

import annulus_torch

SHAPES = [(8, 1024, 16, 16, 128), (1, 8192, 32, 8, 128)]  # batch, seq, heads, heads_kv, head_dim
REPEATS = 50


def tensors(batch, seq, heads, heads_kv, dim):
    def make(h, dtype=torch.bfloat16):
        return torch.randn(batch, seq, h, dim, device="cuda", dtype=dtype)

    q, k, v, dout = make(heads), make(heads_kv), make(heads_kv), make(heads)
    out, dq, dk, dv = (torch.empty_like(t) for t in (q, q, k, v))
    lse = torch.empty(batch, heads, seq, device="cuda", dtype=torch.float32)
    return (q, k, v, out, lse), (dout, q, k, v, out, lse, dq, dk, dv)


def median_us(seconds):
    return 1e6 * sorted(seconds)[len(seconds) // 2]


def host_us(call):
    """Host time of a call with nothing before it on the device, and device time between events."""
    host, device = [], []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        start = time.perf_counter()
        call()
        host.append(time.perf_counter() - start)
        end.record()
        torch.cuda.synchronize()
        device.append(begin.elapsed_time(end) * 1e-3)
    return median_us(host), median_us(device)


def replayed(call):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return host_us(graph.replay)


def microseconds(event):
    """Begin and duration of a Kineto event, whose names changed with PyTorch's versions."""
    if hasattr(event, "start_ns"):
        return event.start_ns() * 1e-3, event.duration_ns() * 1e-3
    return event.start_us(), event.duration_us()


def traced(call):
    """CUDA API calls and device work of one call, each (begin, duration, name), in order."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            call()
            torch.cuda.synchronize()
    host, device = [], []
    for event in profiler.profiler.kineto_results.events():
        begin, duration = microseconds(event)
        on_device = event.device_type() == torch.autograd.DeviceType.CUDA
        if on_device or event.name().startswith("cu"):
            (device if on_device else host).append((begin, duration, event.name()))
    return last_call(sorted(host)), sorted(device)


def last_call(host):
    """The last calls between two synchronisations that launch anything."""
    groups = [[]]
    for entry in host:
        if "Synchronize" in entry[2]:
            groups.append([])
        else:
            groups[-1].append(entry)
    return [g for g in groups if any("Launch" in entry[2] for entry in g)][-1]


def print_timeline(title, entries):
    print(title)
    if not entries:
        print("  nothing was recorded")
        return
    first, end = entries[0][0], entries[0][0]
    for begin, duration, name in entries:
        print(f"  {begin - first:9.1f} {duration:8.1f} gap {begin - end:7.1f}  {name[:100]}")
        end = begin + duration
    print(f"  all {end - first:.1f}, busy {sum(e[1] for e in entries):.1f}")


def report(name, call):
    for _ in range(5):
        call()
    host, device = host_us(call)
    graph_host, graph_device = replayed(call)
    print(f"{name}: host {host:.1f}, device {device:.1f}; replayed host {graph_host:.1f}, "
          f"device {graph_device:.1f}")
    api, work = traced(call)
    print_timeline("  CUDA calls of one call: begin, duration", api)
    print_timeline("  on the device: begin, duration", work[-(len(work) // 3):])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library")
    path = parser.parse_args().library
    annulus = annulus_torch.load(path)
    for shape in SHAPES:
        attention = annulus.attention(*shape, torch.bfloat16)
        forward, backward = tensors(*shape)
        label = "batch {} seq {} heads {}:{} dim {}".format(*shape)
        report(f"forward {label}", lambda: attention.forward(*forward))
        report(f"backward {label}", lambda: attention.backward(*backward))
        attention.close()


if __name__ == "__main__":
    main()
