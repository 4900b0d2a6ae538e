"""Lets a whole fleet run for long at half of what it can do, while some events fail, old ones are
trimmed, and one process after the other is ended and started again. Tells whether anything is
missing in the end, and whether memory, latency and the number of keys stayed what they were.

It starts two routers, and two workers of each of two subscribers, on a Redis of their own. The
exit code is 1 if anything is missing. --save keeps all samples as JSON, and a chart;
benches/soak/report.py writes that into docs/performance.md.
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # The repository stays as it is.
sys.path.append(str(Path(__file__).resolve().parents[1] / "peers"))

import argparse
import os
import platform
import signal
import subprocess
import time
from datetime import date

import chart
import ours
import report
from fleet import (
    EVENT_BYTES, FAIL_ALWAYS, FAIL_ONCE, MAXLEN, MILLION, SUBSCRIBERS, Fleet, Strikes, capacity, fail_always,
)
from harness import Failed, cpu, private_redis, slug

CALIBRATION = 100_000
PATIENCE = 120
PERCENTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p99.9_ms": 0.999, "max_ms": 1}


def percentiles(counted):
    """Of what several workers counted: pairs of nanoseconds and how many took so long."""
    pairs = sorted(pair for counts in counted for pair in counts["latencies"])
    total = sum(count for _, count in pairs)
    found, seen, wanted = {}, 0, list(PERCENTILES.items())
    for value, count in pairs:
        seen += count
        while wanted and seen >= wanted[0][1] * total:
            found[wanted.pop(0)[0]] = round(value / 1e6, 3)
    return found


def sample(fleet, now):
    """Everything that is to stay flat, and what was counted since the last sample."""
    status, counted = fleet.status(), []
    for player in fleet.players.values():
        while player.counts:
            counted.append(player.counts.popleft())
    groups = {subscriber: {"waiting": 0, "pending": 0} for subscriber in ["router", *SUBSCRIBERS]}
    for group in status["groups"]:
        if (found := groups.get(group["subscriber"])) is not None:
            # Redis cannot always tell what waits.
            known = found["waiting"] is not None and group["waiting"] is not None
            found["waiting"] = found["waiting"] + group["waiting"] if known else None
            found["pending"] += group["in_flight"] + group["retrying"] + group["released"]
    return {
        "t": round(now, 1),
        "rss": {name: player.rss() for name, player in fleet.players.items() if name != "producer"},
        "redis_memory": fleet.redis.memory(),
        "keys": fleet.redis.call("DBSIZE"),
        "inbox": status["router"]["inbox"],
        "orders": status["streams"][0]["length"],
        "dead": sum(subscriber["dead"] for subscriber in status["subscribers"]),
        "groups": groups,
        "routed": status["router"]["routed"],
        "handled": sum(counts["handled"] for counts in counted),
        "failed": sum(counts["failed"] for counts in counted),
        "latency": percentiles(counted),
    }


class Progress:
    """A line that tells how far it is, where there is a terminal."""

    def __init__(self, seconds):
        self.seconds, self.terminal = seconds, sys.stderr.isatty()

    def show(self, now, samples, strikes):
        if self.terminal:
            def clock(seconds):
                return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
            words = [f"{clock(now)} of {clock(self.seconds)}", f"{len(strikes.done)} ended"]
            if samples:
                last = samples[-1]
                words += [
                    f"{last['routed']:,} routed", f"p99 {last['latency'].get('p99_ms', '–')} ms",
                    f"Redis {last['redis_memory'] / 1e6:.0f} MB", f"{last['keys']} keys",
                ]
            print("\r\x1b[K" + ", ".join(words), end="", file=sys.stderr, flush=True)

    def end(self):
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def soak(fleet, seconds, rate, every):
    """All of it, until nothing is owed any more; answers what was seen, and what is missing."""
    events = round(rate * seconds)
    fleet.start()
    producer = fleet.produce(events, rate)
    if not producer.ready.wait(30):
        raise producer.failure("was not ready in time")
    start, samples, progress = time.monotonic(), [], Progress(seconds)
    strikes = Strikes(fleet, min(30, seconds / 5), seconds)
    while not producer.done.is_set():
        now = time.monotonic() - start
        fleet.check(strikes.victim)
        strikes.step(now)
        if now >= (len(samples) + 1) * every:
            samples.append(sample(fleet, now))
        progress.show(now, samples, strikes)
        time.sleep(0.1)
    took = time.monotonic() - start
    while strikes.victim or not fleet.status()["drained"]:
        fleet.check(strikes.victim)
        strikes.step(time.monotonic() - start)
        if time.monotonic() - start > took + PATIENCE:
            break
        time.sleep(0.1)
    progress.end()
    account, missing = settle_up(fleet, events)
    return {
        "events": events, "seconds": round(took, 1), "drained_after": round(time.monotonic() - start - took, 1),
        "account": account, "missing": missing, "strikes": strikes.done, "samples": samples,
    }


def settle_up(fleet, events):
    """Where each event is, and what is not as it must be."""
    status, missing = fleet.status(), []

    def expect(what, found, wanted):
        if found != wanted:
            missing.append(f"{what}: {found:,}, not {wanted:,}")
        return found

    router = status["router"]
    account = {
        "published": expect("events in the inbox, ever", fleet.added("inbox"), events),
        "routed": expect("events routed", fleet.added("orders"), events),
        "trimmed": fleet.added("orders") - status["streams"][0]["length"],
        "subscribers": {},
    }
    expect("events left in the inbox", router["inbox"], 0)
    expect("events taken for duplicates", router["duplicates"], 0)
    expect("events refused", router["refused"], 0)
    dead, tallies = fail_always(events), fleet.tallies()
    for subscriber, handled in zip(SUBSCRIBERS, tallies):
        groups = [group for group in status["groups"] if group["subscriber"] == subscriber]
        owed = [group[what] or 0 for group in groups for what in ("waiting", "in_flight", "retrying", "released")]
        lost = next(found["lost"] for found in status["subscribers"] if found["name"] == subscriber)
        account["subscribers"][subscriber] = {
            "handled": expect(f"{subscriber}: handled", handled, events - dead),
            "dead": expect(f"{subscriber}: dead letters, ever", fleet.added(f"dead:{subscriber}"), dead),
            "owed": expect(f"{subscriber}: owed", sum(owed), 0),
            "lost": expect(f"{subscriber}: lost", lost, 0),
        }
    if not status["drained"]:
        missing.append(f"not everything was settled {PATIENCE} s after the last event")
    return account, missing


def programs(folder):
    return folder or Path(ours.build()).parent


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=15, metavar="N", help="how long; 15 unless given, 0.5 to try it")
    parser.add_argument("--rate", type=int, metavar="N", help="events per second, instead of half of what it can do")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the results there as JSON, and a chart")
    parser.add_argument("--bin-dir", type=Path, metavar="DIR", help="programs that are there, instead of a release build")
    found = parser.parse_args()
    if not found.minutes >= 0.1:
        parser.error("--minutes: at least 0.1")
    if found.rate is not None and found.rate < 1:
        parser.error("--rate: at least 1")
    return found


def main():
    wanted = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seconds = wanted.minutes * 60
    every = max(1, min(5, round(seconds / 12)))
    where, rate, able = programs(wanted.bin_dir), wanted.rate, None

    def run(work):
        with private_redis("streamfleet-soak-", unix=True) as (redis, folder):
            fleet = Fleet(where, redis, folder, every)
            try:
                return {"redis": redis.version, "found": work(fleet)}
            finally:
                fleet.stop()

    def calibrate(fleet):
        fleet.start()
        return capacity(fleet, CALIBRATION)

    try:
        if rate is None:
            print("measuring what it can do", file=sys.stderr)
            able = round(run(calibrate)["found"])
            rate = max(1, able // 2)
        print(f"{wanted.minutes:g} minutes at {rate:,} events/s", file=sys.stderr)
        ran = run(lambda fleet: soak(fleet, seconds, rate, every))
    except (Failed, subprocess.CalledProcessError, OSError) as error:
        raise SystemExit(f"soak: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("soak: stopped") from None
    results = {
        "date": date.today().isoformat(), "cpu": cpu(), "cores": os.cpu_count(), "kernel": platform.release(),
        "redis": ran["redis"], "version": ours.version(), "minutes": wanted.minutes, "rate": rate, "capacity": able,
        "event_bytes": EVENT_BYTES, "maxlen": MAXLEN, "fail_once": FAIL_ONCE / MILLION,
        "fail_always": FAIL_ALWAYS / MILLION, **ran["found"],
    }
    print(report.aligned(results))
    if wanted.save:
        wanted.save.mkdir(parents=True, exist_ok=True)
        file = wanted.save / f"{results['date']}-{slug(results)}-soak.json"
        file.write_text(report.dump(results))
        file.with_suffix(".svg").write_text(chart.draw(results))
        print(f"written: {file} and {file.with_suffix('.svg').name}", file=sys.stderr)
    if results["missing"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
