#!/usr/bin/env python3
"""What a soak showed, from what scripts/soak --save wrote.

    benches/soak/report.py FILE          prints it
    benches/soak/report.py FILE PAGE     writes it into a page, between <!-- soak --> and <!-- /soak -->
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.append(str(Path(__file__).resolve().parents[1] / "peers"))

import json
from statistics import median

from table import columns, markdown, put

MARKS = "<!-- soak -->", "<!-- /soak -->"
HEADER = ["", "first fifth", "last fifth", "last / first", "least", "most"]
WARM_UP = 0.2


def series(results):
    """What is to stay flat: name, how to write a value, and the values over time after the warm-up."""
    after = [s for s in results["samples"] if s["t"] >= WARM_UP * results["seconds"]]
    megabytes, whole, milliseconds = (lambda v: f"{v / 1e6:,.1f} MB"), (lambda v: f"{v:,.0f}"), (lambda v: f"{v:,.2f} ms")
    struck = {strike["process"] for strike in results["strikes"]}
    for name in after[0]["rss"] if after else []:
        restarted = ", started again and again" if name in struck else ""
        yield f"memory of {name}{restarted}", megabytes, [s["rss"][name] for s in after]
    yield "memory of Redis", megabytes, [s["redis_memory"] for s in after]
    yield "keys", whole, [s["keys"] for s in after]
    for name in ("p50", "p99"):
        yield f"latency, {name}", milliseconds, [s["latency"].get(f"{name}_ms") for s in after]
    yield "entries in the inbox", whole, [s["inbox"] for s in after]
    yield "entries in the stream", whole, [s["orders"] for s in after]
    yield "dead letters kept", whole, [s["dead"] for s in after]
    for subscriber in results["account"]["subscribers"]:
        for what in ("waiting", "pending"):
            yield f"{what} for {subscriber}", whole, [s["groups"][subscriber][what] for s in after]


def rows(results):
    for name, write, values in series(results):
        fifth = max(1, len(values) // 5)
        first, last, known = ([v for v in part if v is not None] for part in (values[:fifth], values[-fifth:], values))
        if not (first and last):
            yield [name, *["–"] * (len(HEADER) - 1)]
            continue
        first, last = median(first), median(last)
        ratio = f"{last / first:.2f}" if first else "–"
        yield [name, write(first), write(last), ratio, write(min(known)), write(max(known))]


def table(results):
    return HEADER, list(rows(results)), range(1, len(HEADER))


def summary(results):
    """A few sentences."""
    account, rate = results["account"], results["events"] / results["seconds"]
    able = f", {rate / results['capacity']:.0%} of the {results['capacity']:,} that it can do" if results["capacity"] else ""
    signals = [strike["signal"] for strike in results["strikes"]]
    retried = sum(sample["failed"] for sample in results["samples"])
    yield (
        f"{results['seconds'] / 60:.1f} minutes at {rate:,.0f} events/s{able}; two routers, two subscribers with two "
        f"workers each, a private Redis on the same {results['cores']} cores."
    )
    yield (
        f"{len(signals)} times a process was ended and started again: {signals.count('SIGKILL')} by SIGKILL, "
        f"{signals.count('SIGTERM')} by SIGTERM. Handlers failed about {retried:,} times; {account['trimmed']:,} of "
        f"{account['routed']:,} events were trimmed from the stream, whose `maxlen` is {results['maxlen']:,}."
    )
    each = ", ".join(f"{name} handled {found['handled']:,} and gave up {found['dead']:,}"
                     for name, found in account["subscribers"].items())
    verdict = f"MISSING: {'; '.join(results['missing'])}" if results["missing"] else "nothing is missing or owed"
    yield f"{account['published']:,} events were published; {each}: {verdict}, {results['drained_after']} s after the last."


def aligned(results):
    """For a terminal."""
    return "\n".join([columns(*table(results)), "", *summary(results)])


NOTES = f"""\
- Figures are medians over the first and the last fifth of the time after the first {WARM_UP:.0%}, in which buffers and
  the dedupe window fill. Least and most are of all samples after it, those while a process was down included.
- Latency is from when an event was due to be published to the start of its handler, at its first attempt, of all events
  in the samples; so it has in it what waited for a process that was killed to come back.
- Handled is what Redis counted, in one step with the acknowledgement. Dead letters that are not kept any more count."""


def section(results, name):
    """For the page."""
    caption = (
        f"{results['date']}, {results['cpu']}, {results['cores']} cores, Redis {results['redis']}, streamfleet "
        f"{results['version']}; events of {results['event_bytes']} bytes, {results['fail_once']:.2%} of them fail once, "
        f"{results['fail_always']:.2%} always."
    )
    picture = f"![Memory, latency and keys over time](benchmarks/{name}.svg)"
    return "\n\n".join([caption, "\n".join(f"- {line}" for line in summary(results)), markdown(*table(results)), picture, NOTES])


def dump(results):
    """One line for each sample."""
    lines = {}
    for name in ("samples", "strikes"):
        lines[name] = ",\n".join("  " + json.dumps(entry) for entry in results[name])
    text = json.dumps({**results, "samples": [], "strikes": []}, indent=1)
    for name, entries in lines.items():
        text = text.replace(f'"{name}": []', f'"{name}": [\n{entries}\n ]')
    return text + "\n"


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: benches/soak/report.py FILE [PAGE]")
    file = Path(sys.argv[1])
    results = json.loads(file.read_text())
    if len(sys.argv) == 2:
        print(aligned(results))
    else:
        put(Path(sys.argv[2]), MARKS, section(results, file.stem))


if __name__ == "__main__":
    main()
