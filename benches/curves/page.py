#!/usr/bin/env python3
"""Pages from what scripts/performance --save wrote.

    benches/curves/page.py FILE          prints it
    benches/curves/page.py FILE FOLDER   writes it into FOLDER/docs/performance.md and FOLDER/README.md,
                                         between their markers, and draws the chart beside FILE's name
                                         in FOLDER/docs/benchmarks
"""

import sys

sys.dont_write_bytecode = True  # The repository stays as it is.

import json
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "peers"))

import chart
from plan import CLIENTS, MEMORY, REDIS
from table import columns, markdown, put

# What counts as growth; less is noise.
GROWTH = 1.1
NAMES = {REDIS: "Redis", CLIENTS: "our processes", MEMORY: "memory"}


def number(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def get(row, name, side="ours"):
    """The median of a figure."""
    spread = (row["figures"].get(name) or {}).get(side)
    return spread and spread["median"]


def most(row, role, what):
    """The most memory, or time to be ready, that any of our processes of this role needed."""
    return max(p[what]["max"] for p in row["processes"] if (p["role"], p["side"]) == (role, "ours"))


def taking_part(row):
    """Which roles worked: what was run for a row may have had other stages as well."""
    return {"route": ["router"], "handle": ["worker"]}.get(row["stage"], ["router", "worker"])


def caption(report, parameters=None):
    text = f"{report['date']}, {report['cpu']}, {report['cores']} cores, {report['server']}, {report['persistence']}"
    if parameters:
        text += f": {parameters['events']:,} events of {parameters['event_bytes']:,} bytes of JSON"
    notes = [
        "a development build, which says nothing about speed" if report["debug_build"] else "",
        "a short run, with fewer events than the curves are meant for" if report["quick"] else "",
    ]
    return "; ".join([text, *filter(None, notes)]) + "."


def name(result):
    return f"{result['stage']}, {result['handler']}" if result.get("handler") else result["stage"]


def stages(headline):
    """Throughput and CPU of each stage beside the floor."""
    header = ["stage", "events/s", "floor", "ratio", "Redis µs", "floor", "ratio", "our CPU µs", "floor", "ratio"]
    rows = []
    for result in headline["results"]:
        if result["stage"] == "latency":
            continue
        cells = []
        for figure in ("events_per_second", "redis_us_per_event", "client_us_per_event"):
            ratio = result["figures"][figure]["ratio"]
            cells += [number(get(result, figure)), number(get(result, figure, "floor")), number(ratio)]
        rows.append([name(result), *cells])
    return header, rows, range(1, len(header))


def latencies(headline):
    header = ["", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"]
    figures = [f"latency_{which}_ms" for which in ("p50", "p90", "p99", "p99_9", "max")]
    rows = [
        [side, *(number(get(result, figure, side)) for figure in figures)]
        for result in headline["results"] if result["stage"] == "latency" for side in ("ours", "floor")
    ]
    return header, rows, range(1, len(header))


def targets(headline):
    header = ["", "is", "target", ""]
    rows = []
    for target in headline["targets"]:
        signs = {"at_least": "≥", "at_most": "≤"}
        wanted = [f"{signs[how]} {bound:g} {target['unit']}" for how, bound in (target["wanted"] or {}).items()]
        met = {True: "met", False: "**missed**", None: ""}[target["met"]]
        rows.append([target["name"], f"{number(target['value'])} {target['unit']}", *(wanted or ["–"]), met])
    return header, rows, [1, 2]


def series(curve):
    """The rows of each series."""
    found = {}
    for row in curve["rows"]:
        found.setdefault(row["series"], []).append(row)
    return found


def points(curve, rows):
    """The numbers of one series."""
    floor = any(get(row, "redis_us_per_event", "floor") is not None for row in rows)
    header = [curve["axis"], "events/s", "Redis µs", "our CPU µs", "Redis bytes"]
    header += ["floor/s", "floor's Redis µs", "floor's CPU µs"] if floor else []
    figures = ["events_per_second", "redis_us_per_event", "client_us_per_event", "redis_bytes_per_event"]
    roles = taking_part(rows[0])
    lines = [
        [
            f"{row['x']:,}", *(number(get(row, figure)) for figure in figures),
            *((number(get(row, figure, "floor")) for figure in figures[:3]) if floor else ()),
            *(number(most(row, role, "peak_rss_mb")) for role in roles),
            number(max(most(row, role, "ready_ms") for role in roles)),
        ]
        for row in rows
    ]
    header += [*(f"{role} MB" for role in roles), "ready ms"]
    return header, lines, range(len(header))


def measures(row):
    return {
        REDIS: get(row, "redis_us_per_event"), CLIENTS: get(row, "client_us_per_event"),
        MEMORY: max(most(row, role, "peak_rss_mb") for role in taking_part(row)),
    }


def growth(rows):
    """By what each cost is multiplied from the first point to the last."""
    first, last = measures(rows[0]), measures(rows[-1])
    return {what: last[what] / first[what] for what in first if first[what]}


def verdict(curve, label, rows):
    factors = growth(rows)
    shown = ", ".join(f"{NAMES[what]} × {factor:.2f}" for what, factor in factors.items())
    text = f"`{label}`, {rows[0]['x']:,} to {rows[-1]['x']:,} {curve['axis']}: {shown}."
    if constant := [what for what in factors if what in curve["constant"]]:
        grows = [NAMES[what] for what in constant if factors[what] > GROWTH]
        same = "Should stay as it is: " + ", ".join(NAMES[what] for what in constant)
        text += f" {same}; " + (f"**grows: {', '.join(grows)}**." if grows else "it does.")
    return text


def headline_blocks(report, headline):
    parameters = headline["parameters"]
    yield (
        f"{caption(report, parameters)} streamfleet {report['version']}, ours and the floor in turn; "
        f"medians of {headline['repeat']}. CPU is per event; of the stage `handle`, per delivery."
    )
    yield "", *stages(headline)
    yield (
        f"Latency at {parameters['rate']:,} events/s, from when an event was due to be sent to the start of its handler:"
    )
    yield "", *latencies(headline)
    yield "What was aimed at (the floor of routing neither validates nor fences):"
    yield "", *targets(headline)


def curve_blocks(report):
    yield (
        f"{caption(report)} Per event: CPU of Redis, CPU of all other processes together, and what Redis' memory grew "
        "by. MB and ms are the most that one process ever had resident, and took from its start to being ready. One run per point, so that a "
        "tenth more or less is noise; factors are from the first point to the last."
    )
    for curve in report["curves"].values():
        yield f"### {curve['title']}"
        yield curve["about"]
        found = series(curve)
        for label, rows in found.items():
            yield f"`{label}`:" if len(found) > 1 else "", *points(curve, rows)
        yield "\n".join(f"- {verdict(curve, label, rows)}" for label, rows in found.items())
        if curve["problem"]:
            yield f"Not measured to its end: {curve['problem'].splitlines()[0]}"


def rendered(blocks, table):
    for block in blocks:
        if isinstance(block, str):
            yield block
        else:
            label, *rest = block
            yield from filter(None, [label, table(*rest)])


def section(report, picture):
    """For docs/performance.md."""
    blocks = []
    if report["headline"]:
        blocks += ["## Headline", *rendered(headline_blocks(report, report["headline"]), markdown)]
    if report["curves"]:
        drawn = f"![CPU per event in each curve; the numbers are in the tables below.](benchmarks/{picture})"
        blocks += ["## How cost grows", drawn, *rendered(curve_blocks(report), markdown)]
    return "\n\n".join(blocks)


def quoted(report):
    """For the README."""
    headline = report["headline"]
    if not headline:
        return "Not measured yet."
    parameters = headline["parameters"]
    latency = next(result for result in headline["results"] if result["stage"] == "latency")
    ours = [p for p in headline["processes"] if p["side"] == "ours"]
    most, ready = (max(p[what]["max"] for p in ours) for what in ("peak_rss_mb", "ready_ms"))
    rest = (
        f"At {parameters['rate']:,} events/s an event reaches its handler, through the router, after "
        f"{number(get(latency, 'latency_p50_ms'))} ms (p50), {number(get(latency, 'latency_p99_ms'))} ms (p99). A router "
        f"or worker takes at most {number(most)} MB and is ready {number(ready)} ms after its start. "
        "[docs/performance.md](docs/performance.md) has the rest: how each cost grows, and others beside it."
    )
    return "\n\n".join([caption(report, parameters), markdown(*stages(headline)), rest])


def aligned(report):
    """For a terminal."""
    blocks = list(headline_blocks(report, report["headline"])) if report["headline"] else []
    blocks += curve_blocks(report) if report["curves"] else []
    return "\n\n".join(rendered(blocks, columns))


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: benches/curves/page.py FILE [FOLDER]")
    file = Path(sys.argv[1])
    report = json.loads(file.read_text())
    if len(sys.argv) == 2:
        print(aligned(report))
        return
    folder, picture = Path(sys.argv[2]), f"{file.stem}.svg"
    put(folder / "docs" / "performance.md", ("<!-- curves -->", "<!-- /curves -->"), section(report, picture))
    put(folder / "README.md", ("<!-- headline -->", "<!-- /headline -->"), quoted(report))
    panels = [
        (curve["title"], label, curve["axis"], rows)
        for curve in report["curves"].values() for label, rows in series(curve).items()
    ]
    (folder / "docs" / "benchmarks" / picture).write_text(chart.draw(panels, get))


if __name__ == "__main__":
    main()
