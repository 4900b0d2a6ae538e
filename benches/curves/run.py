#!/usr/bin/env python3
"""Measures how fast streamfleet is, and how each cost grows, with `streamfleet bench`.

    scripts/performance [CURVE...] [--quick] [--events N] [--bin-dir DIR] [--save DIR]
    scripts/performance --list

CURVE is `headline` or another of --list; all unless named. Everything runs on private Redis servers, on
a machine that should do nothing else: about 15 minutes on two cores, with --quick less than two.
--save keeps the results there as JSON, named by date and machine; what was measured there before on the
same day, and is not measured now, stays. benches/curves/page.py writes them into the pages.
"""

import sys

sys.dont_write_bytecode = True  # The repository stays as it is.

import argparse
import json
import os
import platform
import re
import subprocess
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benches" / "curves"), str(ROOT / "benches" / "peers")]

import page
import plan
from harness import cpu, slug
from ours import build


class Failed(Exception):
    pass


def exact(value):
    """Five digits are more than there is to know."""
    match value:
        case float():
            return float(f"{value:.5g}")
        case dict():
            return {key: exact(part) for key, part in value.items()}
        case list():
            return [exact(part) for part in value]
    return value


def bench(program, arguments):
    """What it found out, without its samples: their medians are in it."""
    ran = subprocess.run([program, "bench", *arguments, "--output", "json"], capture_output=True, text=True)
    if ran.returncode != 0:
        raise Failed(f"bench {' '.join(arguments)}: {ran.stderr.strip() or f'ended with {ran.returncode}'}")
    found = json.loads(ran.stdout)["items"][0]
    del found["samples"]
    return exact(found)


def measure(curve, program, machine):
    """All points of a curve; a failure ends it, and the others go on."""
    rows, problem = [], None
    for point in curve.points:
        print(f"{curve.key}: {point.x:,} {curve.axis} {point.series}".rstrip(), file=sys.stderr)
        try:
            found = bench(program, point.arguments)
        except Failed as failed:
            problem = str(failed)
            print(problem, file=sys.stderr)
            break
        machine |= found["machine"]
        for result in found["results"]:
            rows.append({
                "series": point.series or result["stage"], "x": point.x, "arguments": " ".join(point.arguments),
                **result, "processes": found["processes"],
            })
    about = {"title": curve.title, "axis": curve.axis, "about": curve.about, "constant": curve.constant}
    return {**about, "problem": problem, "rows": rows}


def pretty(report):
    """JSON with a line for each row: what changed can be seen."""
    # Rows first become placeholders: the standard library indents all or nothing.
    rows = {}

    def placeholder(row):
        rows[f'"row {len(rows)}"'] = json.dumps(row)
        return f"row {len(rows) - 1}"

    curves = {
        key: {**curve, "rows": [placeholder(row) for row in curve["rows"]]}
        for key, curve in report["curves"].items()
    }
    text = json.dumps({**report, "headline": placeholder(report["headline"]), "curves": curves}, indent=1)
    return re.sub(r'"row \d+"', lambda found: rows[found[0]], text) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="scripts/performance", description=__doc__.split("\n\n")[0])
    parser.add_argument("curves", nargs="*", metavar="CURVE", help="one of --list; all unless named")
    parser.add_argument("--list", action="store_true", help="print the curves")
    parser.add_argument("--quick", action="store_true", help="a tenth of the events, once, without the longest run")
    parser.add_argument("--events", type=int, help="what all sizes are multiples of (100,000; with --quick 10,000)")
    parser.add_argument("--bin-dir", type=Path, metavar="DIR", help="measure these programs; built unless given")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep the results there as JSON")
    given = parser.parse_args()
    base = given.events or (10_000 if given.quick else 100_000)
    if base < 10:
        parser.error("--events: at least 10")
    curves = {curve.key: curve for curve in plan.curves(base, given.quick)}
    if given.list:
        print(plan.HEADLINE, "The stages beside the floor, and the targets", sep="\t")
        for curve in curves.values():
            print(curve.key, curve.title, sep="\t")
        return
    keys = given.curves or [plan.HEADLINE, *curves]
    if unknown := [key for key in keys if key not in curves and key != plan.HEADLINE]:
        parser.error(f"{', '.join(unknown)} is no curve: {', '.join([plan.HEADLINE, *curves])}")
    program = str(given.bin_dir / "streamfleet") if given.bin_dir else build()

    start, machine = time.monotonic(), {}
    report = {
        "date": date.today().isoformat(), "cpu": cpu(), "cores": os.cpu_count(), "kernel": platform.release(),
        "base": base, "quick": given.quick, "headline": None, "curves": {},
    }
    problems = []
    for key in keys:
        if key == plan.HEADLINE:
            print(key, file=sys.stderr)
            try:
                report["headline"] = bench(program, plan.headline(base, given.quick))
                machine |= report["headline"]["machine"]
            except Failed as failed:
                problems.append(f"{key}: {failed}")
                print(failed, file=sys.stderr)
        else:
            report["curves"][key] = found = measure(curves[key], program, machine)
            problems += [f"{key}: {found['problem']}"] if found["problem"] else []
    if not machine:
        raise SystemExit("performance: nothing was measured")
    report |= {name: machine[name] for name in ("version", "server", "persistence", "debug_build")}
    report["seconds"] = round(time.monotonic() - start)
    if given.save:
        given.save.mkdir(parents=True, exist_ok=True)
        file = given.save / f"{report['date']}-{slug(report)}-curves.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        if all(before.get(name) == report[name] for name in ("base", "quick", "version", "server", "debug_build")):
            report["headline"] = report["headline"] or before["headline"]
            merged = before["curves"] | report["curves"]
            report["curves"] = {key: merged[key] for key in curves if key in merged}
            report["seconds"] += before["seconds"]
        file.write_text(pretty(report))
        print(f"written: {file}", file=sys.stderr)
    print(page.aligned(report))
    print(f"{len(keys)} in {report['seconds']} s", file=sys.stderr)
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
