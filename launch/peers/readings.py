"""What the programs print, as readings: seconds of one name on one shape."""
import json
import re
from dataclasses import dataclass

from shapes import Shape

CEILING = "ceiling"


@dataclass(frozen=True)
class Reading:
    shape: Shape
    name: str
    forward_s: float | None = None
    both_s: float | None = None  # forward and backward
    error: str = ""

    @property
    def ours(self):
        return self.name.startswith("annulus ")


def lines_of(text):
    """The lines that are JSON objects; programs print other things too."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off: the step says that it failed


def passes(timing):
    forward, backward = timing["forward"], timing["backward"]
    if forward is None or backward is None:
        return forward and forward["median_s"], None
    return forward["median_s"], forward["median_s"] + backward["median_s"]


def of_bench(text):
    """`annulus bench --json -`; a check that failed makes no reading."""
    for point in lines_of(text):
        problem, parallel = point["problem"], point["parallel"]
        shape = Shape(problem["seq"] // parallel["world"], problem["heads"], problem["heads_kv"], problem["head_dim"])
        name = f"annulus {parallel['algorithm']}"
        check = point["check"]
        if check is not None and not check["passed"]:
            yield Reading(shape, name, error="its check failed")
        else:
            yield Reading(shape, name, *passes(point["timing"]))


def of_ceiling(texts, shape, seq):
    """The same call on every GPU at once: the slowest counts. Of texts that have other lengths too."""
    times = [passes(point["timing"]) for text in texts for point in lines_of(text) if point["problem"]["seq"] == seq]
    if len(times) < len(texts):
        return Reading(shape, CEILING, error=f"{len(texts) - len(times)} of {len(texts)} GPUs gave no figure")
    forward, both = zip(*times)
    return Reading(shape, CEILING, max(forward), None if None in both else max(both))


def of_peers(text):
    """tests/bench/peers.py"""
    for line in lines_of(text):
        shape = Shape(line["tokens"], line["heads"], line["heads_kv"], line["head_dim"])
        yield Reading(shape, line["peer"], line["forward_s"], line["forward_backward_s"], line["error"] or "")


ROW = re.compile(r"^S/GPU=(\d+) hq=(\d+) hk=(\d+) (.+?) fwd (\d+) +fwd\+bwd (\d+) TFLOP/s/GPU$", re.MULTILINE)


def of_script(text, head_dim, world):
    """Another script's rows, as `--peer-script` says, whose rates are rounded to 1 TFLOP/s."""
    for tokens, heads, heads_kv, name, forward, both in ROW.findall(text):
        shape = Shape(int(tokens), int(heads), int(heads_kv), head_dim)
        seconds = [shape.flops(world, which) / (float(rate) * 1e12) if float(rate) else None
                   for which, rate in (("forward", forward), ("both", both))]
        yield Reading(shape, f"script: {name}", *seconds)
