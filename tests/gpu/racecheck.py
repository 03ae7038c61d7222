#!/usr/bin/env python3
"""Reads a report of compute-sanitizer's racecheck on `hopper` and leaves out hazards of four known kinds.

    racecheck.py REPORT      prints each hazard that is of none; exits 1 if there is one, 2 where it cannot tell
    racecheck.py --self-test

racecheck knows barriers and __syncwarp, but not what mbarriers order. docs/notes/07-hopper-forward.md and, of the backward,
08 say of each kind which mbarrier orders which accesses. A hazard counts as known only if every access that it names lies in a function
of that kind: found by file and line, which is why kernels are built with -lineinfo. What has no line is not known.
"""
import pathlib
import re
import sys

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "attention/kernels/sm90"
# (who writes, who reads), as FILE:FUNCTION.
KNOWN = {
    "LSE that consumers leave and porters carry": ({"rows.cuh:finish_sums"}, {"porter.cuh:carry_lse"}),
    "a step that was read and is described anew": (
        {"loader.cuh:describe", "loader.cuh:say_aborted"},
        {"next_step.cuh:look_up", "forward.cuh:start_values", "forward.cuh:look", "forward.cuh:find_maxima",
         "softmax.cuh:seen_by_lane", "softmax.cuh:mask_scores"}),
    "numbers and masks of a step's rows": (
        {"backward_loader.cuh:keep_numbers", "backward_loader.cuh:find_seen"},
        {"backward_scores.cuh:of_rows", "backward_scores.cuh:HeldNumbers", "backward_scores.cuh:hide",
         "backward_turned.cuh:numbers"}),
    "a step that adders have read and is said anew": (
        {"backward_loader.cuh:say", "backward_loader.cuh:say_end"},
        {"backward_adder.cuh:run_in_turn", "backward_adder.cuh:run_of_group"}),
}
BEGIN = re.compile(r"Race reported between|hazard detected at")
PLACE = re.compile(r"\b(\w+\.(?:cuh|cu|h)):(\d+)\b")
ACCESS = re.compile(r"\b(Write|Read) (?:access|Thread)", re.IGNORECASE)
SUMMARY = re.compile(r"RACECHECK SUMMARY: (\d+) hazards? displayed")
# The head of a function at namespace or class depth of the house style.
FUNCTION = re.compile(r"^\s*(?:template <.*>\s*)?(?:static )?__device__ (?:__forceinline__|inline) .*?\b(\w+)\(")


def function_at(name, line):
    """The device function that a line of a source file belongs to."""
    path = SOURCES / name
    if not path.is_file():
        return f"{name}:?"
    text = path.read_text().splitlines()
    for number in range(min(line, len(text)), 0, -1):
        found = FUNCTION.match(text[number - 1])
        if found:
            return f"{name}:{found.group(1)}"
    return f"{name}:?"


def hazards(text):
    """The records of a report: the line that begins one and those that go on with it."""
    records = []
    for line in text.splitlines():
        if not line.startswith("========="):
            continue
        body = line.strip("= ").strip()
        if BEGIN.search(body):
            records.append([body])
        elif records and records[-1] and ACCESS.search(body):
            records[-1].append(body)
        elif records and not body:
            records.append([])
    return [record for record in records if record]


def kind_of(record):
    """The known kind of a hazard, or None."""
    accesses = []
    for line in record:
        # "Race reported between Write access at ... in F:1 and Read access ..." may be one line or two.
        for part in re.split(r"(?=\b(?:Write|Read) (?:access|Thread))", line, flags=re.IGNORECASE):
            said = ACCESS.match(part)
            if said:
                places = PLACE.findall(part)
                if not places:
                    return None
                accesses.append((said.group(1).lower(), function_at(places[-1][0], int(places[-1][1]))))
    if {what for what, _ in accesses} != {"read", "write"}:
        return None
    for kind, (writers, readers) in KNOWN.items():
        if all(place in (writers if what == "write" else readers) for what, place in accesses):
            return kind
    return None


def check(text):
    """(known, others, whether the report is whole)"""
    records = hazards(text)
    summary = SUMMARY.search(text)
    known = [kind_of(record) for record in records]
    others = [record for record, kind in zip(records, known) if kind is None]
    return known, others, summary is not None and int(summary.group(1)) == len(records)


def place(name, function, inside):
    """FILE:LINE of a line of that function, for the self-test."""
    text = (SOURCES / name).read_text().splitlines()
    for number, line in enumerate(text, 1):
        if inside in line and function_at(name, number) == f"{name}:{function}":
            return f"{name}:{number}"
    raise SystemExit(f"no '{inside}' in {function} of {name}")


def self_test():
    lse = place("rows.cuh", "finish_sums", "lse[at.row(h)]"), place("porter.cuh", "carry_lse", "shared.lse")
    step = place("loader.cuh", "describe", "to.keys = keys"), place("next_step.cuh", "look_up", "said.keys")
    numbers = (place("backward_loader.cuh", "keep_numbers", "shared.lse[stage]"),
               place("backward_turned.cuh", "numbers", "shared.lse[stage]"))
    said = place("backward_loader.cuh", "say", "to.rows ="), place("backward_adder.cuh", "run_in_turn", "shared.steps")
    queries = place("rows.cuh", "begin_sums", "{"), place("porter.cuh", "each_piece", "shared.q")

    def report(*pairs, count=None):
        text = ""
        for write, read in pairs:
            text += (f"========= Error: Race reported between Write access at void k(P)+0x10 in /x/{write}\n"
                     f"=========     and Read access at void k(P)+0x20 in /x/{read} [32 hazards]\n========= \n")
        count = len(pairs) if count is None else count
        return text + f"========= RACECHECK SUMMARY: {count} hazards displayed ({count} errors, 0 warnings)\n"

    def verdict(text):
        known, others, whole = check(text)
        return len(known) - len(others), len(others), whole

    assert verdict(report()) == (0, 0, True)
    assert verdict(report(lse, step)) == (2, 0, True)
    assert verdict(report(lse, queries, step)) == (2, 1, True)
    assert verdict(report(numbers, said)) == (2, 0, True)
    assert verdict(report((numbers[0], said[1]), (said[0], numbers[1]))) == (0, 2, True)
    assert verdict(report((lse[1], lse[0]))) == (0, 1, True)  # the roles changed
    assert verdict(report((lse[0], step[1]))) == (0, 1, True)  # two kinds mixed
    assert verdict(report((lse[0], "somewhere"))) == (0, 1, True)  # no line
    assert not verdict(report(lse, count=2))[2] and not verdict("")[2]
    print("racecheck.py: 10 checks, 0 failures")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    known, others, whole = check(pathlib.Path(sys.argv[1]).read_text(errors="replace"))
    for kind in KNOWN:
        print(f"racecheck: {known.count(kind)} of: {kind}")
    for record in others:
        print("racecheck: not known:", *record, sep="\n  ")
    if not whole:
        print("racecheck: the summary does not have as many hazards as were read, or is missing")
    return 1 if others else 0 if whole else 2


if __name__ == "__main__":
    sys.exit(main())
