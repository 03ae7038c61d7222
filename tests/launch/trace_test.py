#!/usr/bin/env python3
"""bench --trace by command, on threads and MPI ranks: valid JSON, every item of the plan once a call, rows
whose events do not overlap, both ends of each arrow, and the report's exposed time and overlap from it.

    trace_test.py ANNULUS [MPIRUN]
"""
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

annulus, mpirun = sys.argv[1], sys.argv[2:3]
shape = ["--seq", "203", "--heads", "4", "--heads-kv", "2", "--head-dim", "16", "--warmup", "0", "--iterations", "1"]
failures = 0


def fail(text):
    global failures
    failures += 1
    print("FAILED:", text)


def call(command, expected=0):
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if done.returncode != expected:
        fail(f"{' '.join(command)}: exit {done.returncode}, not {expected}: {done.stderr[-300:]}")
    return done


def ns(us):
    return round(us * 1000)


def planned_items(world, options):
    """By plan, of all ranks and both passes."""
    done = call([annulus, "plan", *shape, *options, "--world", str(world), "--quiet", "--json", "-"])
    return json.loads(done.stdout)["items"]


def check_events(name, events):
    items, rows, arrows = Counter(), defaultdict(list), defaultdict(list)
    heads = {(e["pid"], e["tid"], e["name"]) for e in events if e["ph"] == "M"}
    for e in events:
        if e["ph"] in "sf":
            arrows[e["id"]].append(e)
        if e["ph"] != "X":
            continue
        rows[e["pid"], e["tid"]].append((ns(e["ts"]), ns(e["ts"]) + ns(e["dur"]), e["name"]))
        if (e["pid"], e["tid"], "thread_name") not in heads or (e["pid"], 0, "process_name") not in heads:
            fail(f"{name}: a row of rank {e['pid']} has no name")
        if "item" in e["args"]:
            items[e["args"]["run"], e["args"]["call"], e["name"]] += 1
            if not e["name"].startswith(f"rank {e['pid']} item {e['args']['item']}: "):
                fail(f"{name}: '{e['name']}' stands on rank {e['pid']}")
    for row, list_ in rows.items():
        list_.sort()
        for before, after in zip(list_, list_[1:]):
            if before[1] > after[0]:
                fail(f"{name}: row {row}: {before} overlaps {after}")
    for which, ends in arrows.items():
        if sorted(e["ph"] for e in ends) != ["f", "s"]:
            fail(f"{name}: arrow {which} has ends {[e['ph'] for e in ends]}")
    if set(items.values()) > {1}:
        fail(f"{name}: an item stands twice: {items.most_common(1)}")
    return len(items), len(arrows)


def check_report(name, point, run):
    comm = point["comm"]
    ranks = zip(*[call_["ranks"] for call_ in run["calls"]])
    exposed = max(sum(one["exposed_s"] for one in passes) for passes in ranks)
    if comm["exposed_source"] != "trace" or abs(comm["exposed_s"] - exposed) > 1e-9:
        fail(f"{name}: exposed_s {comm['exposed_s']} of '{comm['exposed_source']}', the trace says {exposed}")
    if comm["overlap"] is None:
        if comm["bytes_sent_per_rank"]:
            fail(f"{name}: no overlap")
    elif abs(comm["overlap"] - (1 - exposed / comm["transfers_alone_s"])) > 1e-9:
        fail(f"{name}: overlap {comm['overlap']}")
    for call_ in run["calls"]:
        for one in call_["ranks"]:
            if abs(one["compute_s"] + one["exposed_s"] + one["idle_s"] - one["call_s"]) > 1e-9:
                fail(f"{name}: times do not add up: {one}")


def check_trace(start, world, options, folder):
    name = f"{' '.join(options)} on {world}"
    trace, report = folder / "trace.json", folder / "report.json"
    threads = [] if start else ["--transport", "local", "--world", str(world)]
    call([*start, annulus, "bench", *shape, *options, *threads, "--trace", str(trace), "--json", str(report)])
    if not trace.exists():
        return fail(f"{name}: no file")
    read = json.loads(trace.read_text())
    items, arrows = check_events(name, read["traceEvents"])
    points = [json.loads(line) for line in report.read_text().splitlines()]
    wanted = len(points) * planned_items(world, options)
    if items != wanted:
        fail(f"{name}: {items} items, the plans have {wanted}")
    if (arrows > 0) != (world > 1):
        fail(f"{name}: {arrows} arrows")
    for point, run in zip(points, read["otherData"]["runs"], strict=True):
        check_report(name, point, run)
    trace.unlink()


def check_refusals(folder):
    alone = [annulus, "bench", *shape]
    lost = str(folder / "no" / "t.json")
    for command, text in (
            ([*alone, "--trace", lost], f"--trace: '{lost}' cannot be written: its folder does not exist"),
            ([*alone, "--trace", str(folder)], "it is a folder"),
            ([*alone, "--trace", "-", "--json", "-"], "is standard output, and so is json"),
            ([*alone, "--trace", str(folder / "x"), "--json", str(folder / "." / "x")], "is also the file of json"),
            ([annulus, "cost", "--seq", "8", "--trace", "t.json"], "only bench traces calls"),
            ([annulus, "bench", "--suite", "accounting", "--trace", "t.json"], "a suite times kernels")):
        done = call(command, 2)
        if text not in done.stderr or done.stderr.count("\n") != 1:
            fail(f"{command[1:]}: no '{text}' in: {done.stderr}")
    config = folder / "all.cfg"
    config.write_text("[problem]\nseq = 8\n[report]\ntrace = t.json\n")
    call([annulus, "cost", "--config", str(config), "--quiet"])  # one file serves all subcommands
    if list(folder.glob("*.json")) or list(folder.glob("*.part")):
        fail(f"left behind: {list(folder.iterdir())}")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for world in (1, 2, 3, 4):
            start = [*mpirun, "-np", str(world), "--bind-to", "none"] if mpirun else []
            for algorithm in ("ring", "gather", "ulysses"):
                check_trace([], world, ["--algorithm", algorithm], folder)
            if start:
                check_trace(start, world, ["--algorithm", "ring"], folder)
        check_trace([], 4, ["--algorithm", "hybrid", "--ulysses-degree", "2"], folder)
        (folder / "report.json").unlink()
        to_screen = call([annulus, "bench", *shape, "--trace", "-"])
        check_events("to the screen", json.loads(to_screen.stdout)["traceEvents"])
        check_refusals(folder)
    print(f"{failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
