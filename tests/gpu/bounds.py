#!/usr/bin/env python3
"""What bounds the Hopper kernels, shape by shape, by hardware counters: a Markdown table.

    bounds.py KERNELS_GPU [--shapes TEXT ...] [--limit S]

Runs `kernels_gpu --time hopper TEXT once` under Nsight Compute (`ncu`, clocks as they are) for each TEXT, as
"bf16 128 causal 8192". Columns, in % of what there is while the kernel runs: tensor pipe, MUFU (exponentials),
issue slots, shared memory (wavefronts), L2, DRAM; and cycles of the kernel, and the clock in MHz. A counter that
this ncu does not have is "-". Profiled launches stand alone, so the clock is that of a cool GPU: power is not seen
here. Needs permission to read counters.
"""
import argparse
import csv
import io
import subprocess
import sys

SHAPES = [f"bf16 {dim} {mask} {seq}" for dim, seqs in
          (("128", ("2048", "8192")), ("64", ("8192",)), ("96", ("8192",)), ("192", ("8192",)),
           ("192:128", ("8192",)), ("256", ("8192",))) for seq in seqs for mask in ("full", "causal")]
# Column: names of the metric in the order of preference, and what of it is asked for.
BUSY = "avg.pct_of_peak_sustained_active"
ALL = "avg.pct_of_peak_sustained_elapsed"
COLUMNS = {
    "tensor": (("sm__pipe_tensor_op_hmma_cycles_active", "sm__pipe_tensor_cycles_active",
                "sm__inst_executed_pipe_tensor"), BUSY),
    "MUFU": (("sm__inst_executed_pipe_xu",), BUSY),
    "issue": (("sm__inst_issued", "sm__inst_executed"), BUSY),
    "shared": (("l1tex__data_pipe_lsu_wavefronts", "l1tex__data_bank_reads"), ALL),
    "L2": (("lts__t_sectors",), ALL),
    "DRAM": (("dram__throughput", "dram__bytes"), ALL),
    "cycles": (("sm__cycles_elapsed",), "max"),
    "Hz": (("smsp__cycles_elapsed",), "avg.per_second"),
}


def known_metrics():
    """Base names that this ncu has for the GPU it runs on."""
    said = subprocess.run(["ncu", "--query-metrics"], capture_output=True, text=True, check=False).stdout
    return {line.split()[0] for line in said.splitlines() if "__" in line.split(" ")[0]}


def chosen_metrics():
    known = known_metrics()
    chosen = {}
    for column, (names, part) in COLUMNS.items():
        name = next((n for n in names if n in known), None)
        if name:
            chosen[column] = f"{name}.{part}"
    return chosen


def counted(program, shape, metrics, limit):
    """{pass: {column: value}} of one launch each."""
    command = ["ncu", "--clock-control", "none", "--csv", "--page", "raw", "-k", "regex:hopper_(forward|backward)_kernel",
               "--metrics", ",".join(metrics.values()), program, "--time", "hopper", shape, "once"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    if len(rows) < 2:
        raise RuntimeError(f"{shape}: ncu said {(done.stdout + done.stderr)[-400:]}")
    found = {}
    for row in rows[1:]:  # the first row has units
        which = "forward" if "forward" in row["Kernel Name"] else "backward"
        found.setdefault(which, {c: float(row[m].replace(",", "")) for c, m in metrics.items() if row.get(m)})
        units = {c: rows[0].get(m, "") for c, m in metrics.items()}
        if units.get("Hz", "").startswith("Ghz"):
            found[which]["Hz"] *= 1e9
        elif units.get("Hz", "").startswith("Mhz"):
            found[which]["Hz"] *= 1e6
    return found


def line_of(shape, which, values):
    cells = [f"{values[c]:.0f}" if c in values else "-" for c in COLUMNS if c not in ("cycles", "Hz")]
    cells.append(f"{values['cycles'] / 1e6:.2f} M" if "cycles" in values else "-")
    # An SM's sub-core counts cycles of the SM.
    cells.append(f"{values['Hz'] / 1e6:.0f}" if "Hz" in values else "-")
    return f"| {shape} | {which} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--limit", type=int, default=60, help="seconds for a shape")
    args = parser.parse_args()
    metrics = chosen_metrics()
    print("metrics: " + ", ".join(f"{c} = {m}" for c, m in metrics.items()), file=sys.stderr)
    names = [c if c not in ("Hz",) else "MHz" for c in COLUMNS]
    print("| shape | pass | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    failed = 0
    for shape in args.shapes:
        try:
            for which, values in counted(args.program, shape, metrics, args.limit).items():
                print(line_of(shape, which, values), flush=True)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"bounds.py: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
