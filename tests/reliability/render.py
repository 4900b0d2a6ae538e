#!/usr/bin/env python3
"""Writes the figures that the suites left in a folder into a page, between its markers.

    render.py FOLDER PAGE

The page has blocks `<!-- figures: NAME -->` ... `<!-- end -->`; what stands between is replaced.
A block whose figures the folder does not have is left as it is.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path


def table(header, rows, right=()):
    """A Markdown table; the columns in `right` hold numbers."""
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def reports(folder):
    files = sorted((folder / "faults").glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def milliseconds(value):
    return "–" if value is None else f"{value:,}"


def faults(folder):
    found = reports(folder)
    if not found:
        return None
    rows = []
    for report in found:
        account = report["account"]
        rows.append([
            f"`{report['fault']}`", report["about"], f"{report['strikes']:,}",
            f"{account['published']:,}", f"{account['handled']:,}", f"{account['dead']:,}",
            account["lost"], f"{account['forgotten']:,}", account["duplicated"], account["stuck"], f"{account['charged']:,}",
            f"{account['repeated_runs']:,}",
            milliseconds(report["recovery_p50_ms"]), milliseconds(report["recovery_p99_ms"]),
        ])
    total = [
        "**all**", f"{len(found)} faults", f"{sum(r['strikes'] for r in found):,}",
        *(f"{sum(r['account'][name] for r in found):,}"
          for name in ["published", "handled", "dead", "lost", "forgotten", "duplicated", "stuck",
                       "charged", "repeated_runs"]),
        "", "",
    ]
    header = ["fault", "what strikes", "strikes", "published", "handled", "dead", "lost",
              "forgotten", "duplicated", "stuck", "charged", "run again", "p50 ms", "p99 ms"]
    return table(header, [*rows, total], right=range(2, 14))


def by_name(folder):
    return {report["fault"]: report["notes"] for report in reports(folder)}


def power(folder):
    found = by_name(folder)
    rows = []
    for mode in ["always", "everysec", "no"]:
        notes = found.get(f"power-loss-{mode}")
        if notes is None:
            return None
        lost = int(notes["accepted events lost"])
        rows.append([
            f"`{mode}`", f"{lost:,} of {int(notes['events accepted']):,}",
            f"{notes['oldest accepted event lost, ms before the cut']} ms" if lost else "–",
            f"{int(notes['commits rolled back, run again']):,}",
        ])
    header = ["`appendfsync`", "accepted events lost", "the oldest, before the cut",
              "commits undone and run again"]
    return table(header, rows, right=[1, 2, 3])


FAILOVERS = {
    "failover-async": "asynchronous",
    "failover-cut-off": "asynchronous, and the replica was cut off before",
    "failover-min-replicas": "cut off before, with `min-replicas-to-write 1`, `min-replicas-max-lag 1`",
    "failover-wait": "cut off before, and the publisher counts an event as accepted after `WAIT 1`",
}


def failover(folder):
    found = by_name(folder)
    rows = []
    for fault, mode in FAILOVERS.items():
        notes = found.get(fault)
        if notes is None:
            return None
        lost = int(notes["accepted events lost"])
        before, after = (notes[f"{which} accepted event lost, ms {when} the replica heard nothing more"]
                         for which, when in [("oldest", "before"), ("newest", "after")])
        rows.append([
            mode, notes["delay to the replica, ms"], notes["replica cut off before, ms"],
            f"{lost:,} of {int(notes['events accepted']):,}",
            f"{before} ms before to {after} ms after" if lost else "–",
        ])
    header = ["mode", "replica behind, ms", "cut off for, ms", "accepted events lost",
              "when, from the replica's last news"]
    return table(header, rows, right=[1, 2, 3])


def notes(folder):
    # Those of power cuts and failovers have tables of their own.
    rows = [
        [f"`{fault}`", "; ".join(f"{name}: {value}" for name, value in notes.items() if value)]
        for fault, notes in by_name(folder).items()
        if notes and fault not in FAILOVERS and not fault.startswith("power-loss-")
    ]
    return table(["fault", "figures"], rows) if rows else None


def mutants(folder):
    file = folder / "mutants.json"
    if not file.exists():
        return None
    rows = [
        [f"`{mutant['name']}`", mutant["breaks"],
         ", ".join(f"`{test}`" for test in mutant["caught_by"]) or "**nothing**"]
        for mutant in json.loads(file.read_text())
    ]
    return table(["mutant", "what it breaks", "caught by"], rows)


# What a scenario of the model is bounded by, as the report calls it and as a reader would.
BOUNDS = [("published", "published"), ("subscribers", "subscribers"), ("processes", "processes"),
          ("max_attempts", "attempts"), ("faults", "faults in all"), ("crashes", "crashes"),
          ("lost_answers", "answers lost"), ("late_requests", "late requests"), ("freezes", "freezes"),
          ("redrives", "redrives")]


def model(folder):
    file = folder / "model.json"
    if not file.exists():
        return None
    report = json.loads(file.read_text())
    header = ["scenario", *(name for _, name in BOUNDS), "states", "steps deep", "seconds"]
    rows = [
        [row["name"], *(row[key] for key, _ in BOUNDS), f"{row['unique_states']:,}", row["max_depth"],
         f"{row['seconds']:.0f}"]
        for row in report["bounds"]
    ]
    explored = table(header, rows, right=range(1, len(header)))
    mutants = table(
        ["broken variant of the model", "what it violates", "steps to it"],
        [[f"`{m['name']}`", m["property"], len(m["steps"])] for m in report["mutants"]], right=[2])
    beside = report["side_by_side"]
    return (f"{report['unique_states']:,} states in all, each of them visited:\n\n{explored}\n\n"
            f"Side by side with Redis: {beside['sequences']:,} sequences, {beside['steps']:,} steps, "
            f"no difference.\n\n{mutants}")


def machine(_folder):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"v=([\d.]+)", redis.stdout)
    return (f"Measured on {os.cpu_count()} cores ({cpu.group(1) if cpu else platform.machine()}), "
            f"Linux {platform.release().split('-')[0]}, Redis {version.group(1) if version else '?'}, "
            "development build.")


BLOCKS = {"faults": faults, "power": power, "failover": failover, "notes": notes, "mutants": mutants, "model": model, "machine": machine}


def main():
    folder, page = Path(sys.argv[1]), Path(sys.argv[2])

    def fill(block):
        figures = BLOCKS[block["name"]](folder)
        return block[0] if figures is None else f"{block['open']}\n{figures}\n{block['close']}"

    pattern = r"(?P<open><!-- figures: (?P<name>\w+) -->)\n.*?(?P<close><!-- end -->)"
    page.write_text(re.sub(pattern, fill, page.read_text(), flags=re.S))


main()
