"""Readings to one table: rates, shares of the ceiling, and how many times faster we are than each peer."""
import statistics

from readings import CEILING

SCHEMA = "annulus.peers/1"
PASSES = (("forward", "forward_s"), ("both", "both_s"))


def merged(readings):
    """By shape and name, the median of the rounds: {shape: {name: {pass: seconds}}}."""
    gathered = {}
    for r in readings:
        entry = gathered.setdefault(r.shape, {}).setdefault(r.name, {which: [] for which, _ in PASSES})
        for which, field in PASSES:
            value = getattr(r, field)
            if value and not r.error:
                entry[which].append(value)
    return {shape: {name: {which: statistics.median(v) if v else None for which, v in passes.items()}
                    for name, passes in names.items()} for shape, names in sorted(gathered.items())}


def is_ours(name):
    return name.startswith("annulus ")


def is_peer(name):
    return not is_ours(name) and name != CEILING and "local" not in name


def cell(shape, world, which, seconds, ceiling):
    """The ceiling did a rounded part of the work: rates compare, times do not."""
    if seconds is None:
        return {"seconds": None, "tflops": None, "share": None}
    rate = shape.flops(world, which) / seconds * 1e-12
    return {"seconds": seconds, "tflops": rate, "share": rate / ceiling if ceiling else None}


def ceiling_rate(shape, world, which, names):
    seconds = names.get(CEILING, {}).get(which)
    if seconds is None:
        return None
    flops = 2.0 * shape.heads * shape.ceiling_seq(world) ** 2 * shape.head_dim
    return flops * (1.0 if which == "forward" else 3.5) / seconds * 1e-12


def rows_of(shape, world, names):
    rows = []
    peers = [name for name in names if is_peer(name)]
    for name, times in names.items():
        row = {"tokens": shape.tokens, "heads": shape.heads, "heads_kv": shape.heads_kv, "name": name}
        for which, _ in PASSES:
            best = ceiling_rate(shape, world, which, names)
            if name == CEILING:
                row[which] = {"seconds": times[which], "tflops": best, "share": 1.0 if best else None}
            else:
                row[which] = cell(shape, world, which, times[which], best)
            if is_ours(name):
                row[which]["over"] = {p: names[p][which] / times[which] for p in peers
                                      if names[p][which] and times[which]}
        rows.append(row)
    return rows


def behind(rows):
    """Where even our best algorithm is slower than a peer."""
    found = []
    for shape in dict.fromkeys((r["tokens"], r["heads"], r["heads_kv"]) for r in rows):
        ours = [r for r in rows if (r["tokens"], r["heads"], r["heads_kv"]) == shape and is_ours(r["name"])]
        for which, _ in PASSES:
            best = {}
            for row in ours:
                for peer, ratio in row[which]["over"].items():
                    best[peer] = max(best.get(peer, 0.0), ratio)
            found += [f"{shape[0]} {shape[1]}:{shape[2]} {'forward' if which == 'forward' else 'forward+backward'}: "
                      f"{ratio:.2f} x {peer}" for peer, ratio in best.items() if ratio < 1]
    return found


def report_of(readings, world, device, failed):
    rows = [row for shape, names in merged(readings).items() for row in rows_of(shape, world, names)]
    errors = list(failed) + [f"{r.shape.name} {r.name}: {r.error}" for r in readings if r.error]
    return {"schema": SCHEMA, "world": world, "device": device, "rows": rows, "behind": behind(rows), "failed": errors}


def number(value, digits, scale=1.0):
    return "-" if value is None else f"{value * scale:.{digits}f}"


def text_of(report):
    peers = list(dict.fromkeys(row["name"] for row in report["rows"] if is_peer(row["name"])))
    head = f"{'tokens':>7} {'heads':>6} {'':<28}"
    for title in ("forward", "fwd+bwd"):
        head += f" |{title + ' ms':>12}{'TFLOP/s':>9}{'share':>7}" + "".join(f"{'x ' + str(i + 1):>7}" for i in range(len(peers)))
    lines = [f"{report['world']} x {report['device']}; causal, TFLOP/s a GPU, share of our local kernel on every GPU at once"]
    lines += [f"  x {i + 1}: times as fast as {peer}" for i, peer in enumerate(peers)] + [head]
    for row in report["rows"]:
        heads = f"{row['heads']}:{row['heads_kv']}"
        line = f"{row['tokens']:>7} {heads:>6} {row['name'][:28]:<28}"
        for which, _ in PASSES:
            c = row[which]
            line += f" |{number(c['seconds'], 3, 1e3):>12}{number(c['tflops'], 0):>9}{number(c['share'], 3):>7}"
            line += "".join(f"{number(c.get('over', {}).get(peer), 2):>7}" for peer in peers)
        lines.append(line)
    lines += [f"behind: {line}" for line in report["behind"]] + [f"failed: {line}" for line in report["failed"]]
    return "\n".join(lines) + "\n"
