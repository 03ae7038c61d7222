#!/usr/bin/env python3
"""docs/errors.md against the sources: every quoted text occurs there, and every kind of error is covered.

    errors_test.py SOURCE_DIR
"""
import re
import sys
from pathlib import Path

root = Path(sys.argv[1])
failures = []


def sources():
    for folder in ("runtime", "comm", "attention", "moe", "launch"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".cpp", ".h"):
                yield path.read_text()


# Literals that the formatter broke over lines are one again; placeholders and values become one mark.
text = "\n".join(re.sub(r'"\s*\n\s*"', "", source) for source in sources())
page = (root / "docs/errors.md").read_text()


def pieces(quoted):
    return [piece.strip() for piece in quoted.split("…") if len(re.sub(r"\W", "", piece)) >= 2]


quoted = re.findall(r"^\| `([^`]+)` \|", page[page.index("## Before anything"):], re.MULTILINE)
if len(quoted) < 30:
    failures.append(f"only {len(quoted)} texts were found in docs/errors.md")
for entry in quoted:
    if not pieces(entry):
        if entry != "no …; built: …":
            failures.append(f"nothing to look for in `{entry}`")
    for piece in pieces(entry):
        if piece not in text:
            failures.append(f"`{entry}`: no source says '{piece}'")

kinds = page[page.index("## Kinds"):page.index("## Before anything")]
for name in re.findall(r"^class ANNULUS_API (\w+) : public Error", (root / "runtime/include/annulus/error.h").read_text(),
                       re.MULTILINE):
    if f"`{name}`" not in kinds:
        failures.append(f"the type {name} is not in the table of kinds")
header = (root / "runtime/include/annulus/annulus_c.h").read_text()
statuses = re.findall(r"\b(ANNULUS_\w+) = ", header[header.index("annulus_status;"):header.index("typedef struct annulus_error")])
if len(statuses) != 8:
    failures.append(f"{len(statuses)} statuses were found in annulus_c.h")
for status in statuses:
    if f"`{status}`" not in kinds:
        failures.append(f"the status {status} is not in the table of kinds")

# The check itself can fail.
assert "no source says this" not in text and pieces("a … bytes of arena …") == ["bytes of arena"]
for failure in failures:
    print("FAILED:", failure)
print(f"{len(quoted)} texts, {len(statuses)} statuses, {len(failures)} failures")
sys.exit(1 if failures else 0)
