"""What measuring and showing have in common: the machine, the build, tables, blocks of a page."""

import json
import os
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build():
    """The release build; answers where its program is."""
    print("streamfleet: building", file=sys.stderr)
    command = ["cargo", "build", "--release", "--locked", "--bins", "--message-format", "json"]
    lines = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    built = [json.loads(line).get("executable") for line in lines]
    return next(path for path in built if path and Path(path).name == "streamfleet")


def machine():
    """What it is measured on, and when."""
    model = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return {
        "date": date.today().isoformat(), "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(), "kernel": platform.release(),
    }


def results(report, folder, kind):
    """The file that keeps results: named by the date and the machine."""
    words = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@", "", report["cpu"]).lower()
    name = f"{report['date']}-{report['cores']}-core-{'-'.join(re.findall('[a-z0-9.]+', words))}-{kind}.json"
    return folder / name


def save(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    print(f"written: {file}", file=sys.stderr)


def aligned(header, rows, right):
    """A table for a terminal; the columns in `right` hold numbers."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    )


def markdown(header, rows, right=()):
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def fill(page, name, text):
    """Writes between <!-- name --> and <!-- /name --> of a page."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, begun, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise SystemExit(f"{page} has no {begin} ... {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
