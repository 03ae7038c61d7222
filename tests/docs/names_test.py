#!/usr/bin/env python3
"""docs/coming-from.md: every key and every name of ours that it gives exists.

    names_test.py SOURCE_DIR
"""
import re
import sys
from pathlib import Path

root = Path(sys.argv[1])
page = (root / "docs/coming-from.md").read_text()
headers = "\n".join(path.read_text() for path in (root / "runtime/include/annulus").glob("*.h"))
keys = set(re.findall(r'\{"\w+", "(\w+)", ', (root / "launch/options/keys.cpp").read_text()))
line = (root / "launch/options/command_line.cpp").read_text()
failures = []

# Tables whose middle column is C++ and whose last one is the command.
rows = [re.split(r" \| ", row.strip("| ")) for row in page.splitlines() if row.startswith("| ")]
ours = [row for row in rows if len(row) >= 2 and row[-1] != "command"]
names, options = set(), set()
for row in ours:
    mine = row[1:] if len(row) < 4 else row[3:]
    for code in re.findall(r"`([^`]+)`", " ".join(mine)):
        options.update(re.findall(r"--([a-z][a-z-]*)", code))
        if not code.startswith(("--", "cost", "annulus", "attend")):
            names.update(re.findall(r"(?:\w+::)?([A-Za-z_][A-Za-z_0-9]{2,})", code))
placeholders = {"length", "false", "ids", "ids_kv", "allowed", "seq", "off", "x3"}
for name in sorted(names - placeholders):
    if not re.search(rf"\b{name}\b", headers) and name not in keys:
        failures.append(f"no public header names {name}")
for option in sorted(options):
    if option.replace("-", "_") not in keys and f'"{option}"' not in line and f"--{option}" not in line:
        failures.append(f"--{option} is no key")
if len(names) < 25 or len(options) < 25:
    failures.append(f"only {len(names)} names and {len(options)} options were found")
for failure in failures:
    print("FAILED:", failure)
print(f"{len(names)} names, {len(options)} options, {len(failures)} failures")
sys.exit(1 if failures else 0)
