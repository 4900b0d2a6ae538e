"""streamfleet's own rows, from `streamfleet bench` on the same Redis."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEY = "streamfleet"
GUARANTEE = (
    "effects in Redis exactly once: they happen with the acknowledgement or not at all; what a crashed worker held "
    "is claimed after its lease, 30 s unless set"
)
ALONE = "its worker alone, from a backlog of events that are routed already; concurrency 512, one thread"
FULL = (
    "validated against a JSON Schema, deduplicated and routed by the router, then handled; concurrency 512, one thread. "
    "Consumed: events/s of the whole with the producer running, costs of router and worker each from a backlog. "
    "Produced by the library's Publisher, 500 in a pipeline"
)


def version():
    return re.search(r'(?m)^version = "(.+)"$', (ROOT / "Cargo.toml").read_text())[1]


def build():
    """The release build; answers where its program is."""
    print("streamfleet: building", file=sys.stderr)
    command = ["cargo", "build", "--release", "--locked", "--bins", "--message-format", "json"]
    lines = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    built = [json.loads(line).get("executable") for line in lines]
    return next(path for path in built if path and Path(path).name == "streamfleet")


def bench(program, redis, events, size, subscribers, stages):
    """What our side of each stage cost, by stage."""
    redis.call("FLUSHALL")
    command = [
        program, "bench", "--redis-url", redis.url, "--events", events, "--event-bytes", size,
        "--subscribers", subscribers, "--handlers", "none", "--stages", ",".join(stages), "--output", "json",
    ]
    found = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
    return {sample["stage"]: sample for sample in json.loads(found)["items"][0]["samples"] if sample["side"] == "ours"}


def costs(*samples, seconds=None):
    """Of some stages together, per event; the time is that of the first unless it is given."""
    events = samples[0]["events"]
    processes = [process for sample in samples for process in sample["processes"]]
    seconds = seconds or samples[0]["seconds"]
    return {
        "events_per_second": round(events / seconds),
        "seconds": round(seconds, 3),
        "client_us_per_event": round(sum(p["cpu_seconds"] for p in processes) / events * 1e6, 2),
        "redis_us_per_event": round(sum(s["redis"]["cpu_seconds"] for s in samples) / events * 1e6, 2),
        "peak_rss_bytes": sum(p["peak_bytes"] for p in processes),
    }


def rows(redis, events, size, services):
    """The whole, and the worker alone."""
    shared = {"key": KEY, "version": version(), "events": events, "guarantee": GUARANTEE, "problem": None}
    try:
        program = build()
        one = bench(program, redis, events, size, 1, ["publish", "route", "handle", "end-to-end"])
        three = bench(program, redis, events, size, services, ["end-to-end"])["end-to-end"]
    except (subprocess.CalledProcessError, OSError) as error:
        return [{**shared, "name": "streamfleet", "settings": "", "problem": str(error)}]
    publish, whole = one["publish"], one["end-to-end"]
    produce = costs(publish)
    return [
        {
            **shared, "name": "streamfleet, whole", "settings": FULL, "fan_out_by": "one stream, three groups",
            "produce": produce,
            "consume": costs(one["route"], one["handle"], seconds=whole["seconds"]),
            "redis_bytes_per_event": round(whole["redis"]["memory_bytes"] / events),
            "fan_out": {
                "services": services, "whole": costs(three),
                "redis_bytes_per_event": round(three["redis"]["memory_bytes"] / events),
            },
        },
        {
            **shared, "name": "streamfleet, worker alone", "settings": ALONE, "fan_out_by": "",
            "produce": produce, "consume": costs(one["handle"]),
            "redis_bytes_per_event": round(publish["redis"]["memory_bytes"] / events),
        },
    ]
