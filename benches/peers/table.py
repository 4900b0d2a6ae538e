#!/usr/bin/env python3
"""Tables of what benches/peers/run --save wrote.

    benches/peers/table.py FILE          prints them
    benches/peers/table.py FILE PAGE     writes them into a page, between <!-- peers --> and <!-- /peers -->
"""

import json
import sys
from pathlib import Path

MARKS = "<!-- peers -->", "<!-- /peers -->"
ONE = [
    "peer", "events", "produced/s", "client µs", "Redis µs", "consumed/s", "client µs", "Redis µs", "peak MB",
]
THREE = ["peer", "for three services", "published/s", "handled by all/s", "client µs", "Redis µs", "bytes in Redis"]
NOTES = """\
- Each peer publishes all events, then one consumer process works off the backlog; its handler does nothing and the
  acknowledgement comes after it. Every event was counted in its handler, and Redis owed none in the end.
- µs are CPU time per event: of the peer's processes, and of Redis. They say more than events/s, for which clients and
  Redis share the same cores. Peak MB is the resident memory of the consumer.
- For three services there are three consumer processes; µs are those of publishing and of all three together. Bytes
  are what Redis' memory grew by with each event while it waited for all three; ours are those left when all was done.
- Producers and consumers use each peer's own form of a message. BullMQ, FastStream, Celery and apalis encode and decode
  it as JSON, and that is part of it; sea-streamer takes bytes. So does our publisher; our router and worker decode.
- Time ends with the last handler, ours with the last acknowledgement. CPU counts until everything is acknowledged:
  sea-streamer's last acknowledgements come up to 10 s later.
- Redis kept nothing on disk and was reached over TCP on the same machine.
- What is said of delivery is what their documentation and source say; only our own is tested here."""


def number(value):
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def title(row):
    return f"{row['name']} {row['version']}"


def figures(phase):
    return [phase["events_per_second"], phase["client_us_per_event"], phase["redis_us_per_event"]]


def one_service(row):
    if "consume" not in row:
        return [title(row), number(row["events"]), *["–"] * (len(ONE) - 2)]
    values = [*figures(row["produce"]), *figures(row["consume"]), row["consume"]["peak_rss_bytes"] / 1e6]
    return [title(row), number(row["events"]), *map(number, values)]


def three_services(row):
    three = row["fan_out"]
    phases = [three["whole"]] if "whole" in three else [three["publish"], three["consume"]]
    # Of the whole, publishing and handling go on at once.
    published = three["publish"]["events_per_second"] if "publish" in three else None
    values = [
        published,
        phases[-1]["events_per_second"],
        sum(phase["client_us_per_event"] for phase in phases),
        sum(phase["redis_us_per_event"] for phase in phases),
        three["redis_bytes_per_event"],
    ]
    return [title(row), row["fan_out_by"], *map(number, values)]


def tables(report):
    rows = report["peers"]
    yield ONE, [one_service(row) for row in rows], range(1, len(ONE))
    yield THREE, [three_services(row) for row in rows if "fan_out" in row], range(2, len(THREE))


def problems(report):
    return [f"{row['name']}: {row['problem']}" for row in report["peers"] if row.get("problem")]


def columns(header, rows, right=()):
    """For a terminal."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    )


def aligned(report):
    return "\n\n".join([*(columns(*table) for table in tables(report)), *problems(report)])


def markdown(header, rows, right=()):
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def section(report):
    """For the page."""
    caption = (
        f"{report['date']}, {report['cpu']}, {report['cores']} cores, Redis {report['redis']}: "
        f"{report['events']:,} events of {report['bytes']:,} bytes of JSON, except where the table says fewer."
    )
    terms = [[title(row), row["settings"], row["guarantee"]] for row in report["peers"]]
    return "\n\n".join([
        caption,
        *(markdown(*table) for table in tables(report)),
        markdown(["peer", "settings", "delivery"], terms),
        NOTES,
        *problems(report),
    ])


def put(page, marks, text):
    """Writes a section into a page, between its marks."""
    before, begin, rest = page.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise SystemExit(f"{page} has no {marks[0]} ... {marks[1]}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: benches/peers/table.py FILE [PAGE]")
    report = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) == 2:
        print(aligned(report))
        return
    put(Path(sys.argv[2]), MARKS, section(report))


if __name__ == "__main__":
    main()
