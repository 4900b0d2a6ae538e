"""The fleet of a soak: its files, its processes through all their lives, and what they tell."""

import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

from harness import Failed

SUBSCRIBERS = ["bench1-service", "bench2-service"]
EVENT_BYTES = 600
MAXLEN = 20_000
# So many of a million events fail at their first attempt, and so many at each.
FAIL_ONCE, FAIL_ALWAYS = 10_000, 100
MILLION = 1_000_000
ROUTING = f"""\
version: 1
namespace: streamfleet-bench
schemas: schemas
dedupe_window: 30s
dead_retention: 60s
streams:
  orders: {{ events: ["Order.**"], maxlen: {MAXLEN} }}
routes:
  Order.Placed1: [{", ".join(SUBSCRIBERS)}]
defaults:
  start: beginning
  concurrency: 64
  backoff: {{ initial: 10ms, multiplier: 1, max: 10ms, jitter: 0 }}
"""
TEXT = {"type": "string"}
UUID = {"type": "string", "format": "uuid"}
TIME = {"type": "string", "format": "date-time"}


def object_of(properties, **more):
    return {"type": "object", "required": list(properties), "properties": properties | more}


# Of the events that `streamfleet bench-role produce` sends.
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Order.Placed1.v1",
    **object_of({
        "event_id": UUID, "event_type": {"const": "Order.Placed1"}, "version": {"const": "1"}, "timestamp": TIME,
        "correlation_id": UUID,
        "data": object_of({
            "order_id": {"type": "string", "minLength": 1, "maxLength": 40},
            "customer": object_of({"customer_id": TEXT, "name": TEXT, "country": TEXT}),
            "currency": {"enum": ["EUR", "GBP", "USD"]},
            "lines": {"type": "array", "minItems": 1, "items": object_of({
                "sku": TEXT, "quantity": {"type": "integer", "minimum": 1},
                "unit_price": {"type": "number", "minimum": 0},
            })},
            "total": {"type": "number", "minimum": 0}, "placed_at": TIME,
        }, note=TEXT),
    }, causation_id=UUID, source=TEXT),
}


def fail_always(events):
    """How many of the first so many events are given up, as `bench-role work` chooses them."""
    return sum(number * 617_063 % MILLION < FAIL_ALWAYS for number in range(events))


def key(rest):
    return f"streamfleet-bench:{rest}"


class Player:
    """A process under its name, through all its lives."""

    def __init__(self, name, role, command, environment):
        self.name, self.role, self.command, self.environment = name, role, list(map(str, command)), environment
        self.counts, self.tail = deque(), deque(maxlen=15)
        self.process = None

    def start(self):
        self.ready, self.done = threading.Event(), threading.Event()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment, start_new_session=True,
        )
        # Apart: counts are long lines, and in one pipe the log would come into their middle.
        for output in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._listen, args=(output, self.ready, self.done), daemon=True).start()

    def _listen(self, output, ready, done):
        with output:
            for line in output:
                if not line.endswith("\n"):
                    break  # it was killed in the middle of it
                if line.startswith("bench: counts "):
                    self.counts.append(json.loads(line.removeprefix("bench: counts ")))
                elif line == "bench: ready\n" or '"router started"' in line:
                    ready.set()
                elif line.startswith("bench: done "):
                    done.set()
                else:
                    self.tail.append(line)

    def lives(self):
        return self.process is not None and self.process.poll() is None

    def rss(self):
        """Nothing while it is down."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE") or None

    def failure(self, what):
        return Failed(f"{self.name} {what}:\n  {'  '.join(self.tail)}")

    def stop(self):
        """Ends it in any case."""
        if self.lives():
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Fleet:
    """Two routers, and two workers of each of two subscribers, on a Redis of their own."""

    def __init__(self, programs, redis, folder, every):
        self.redis, self.folder, self.program = redis, Path(folder), Path(programs, "streamfleet")
        Path(folder, "schemas").mkdir()
        Path(folder, "schemas", "Order.Placed1.v1.json").write_text(json.dumps(SCHEMA))
        Path(folder, "routing.yaml").write_text(ROUTING)
        self.environment = {
            **os.environ, "STREAMFLEET_CONFIG": str(Path(folder, "routing.yaml")), "STREAMFLEET_REDIS_URL": redis.url,
            "STREAMFLEET_LOG_FORMAT": "json", "STREAMFLEET_LOG": "info",
        }
        self.players = {}
        for number in (1, 2):
            self._add(f"router-{number}", "router", [Path(programs, "streamfleet-router"), "--name", f"router-{number}"])
        for subscriber in SUBSCRIBERS:
            for number in (1, 2):
                name = f"{subscriber.removesuffix('-service')}-worker-{number}"
                self._add(name, "worker", self._role(
                    "work", name, "--subscriber", subscriber, "--kind", "failing", "--fail", FAIL_ONCE,
                    "--fail-always", FAIL_ALWAYS, "--name", name, "--tally", "--record", "--every", every,
                ))

    def _add(self, name, role, command):
        self.players[name] = Player(name, role, command, self.environment)

    def _role(self, role, name, *arguments):
        return [self.program, "bench-role", role, "--counted", self.folder / f"{name}.json", *arguments]

    def start(self):
        for player in self.players.values():
            player.start()
        for player in self.players.values():
            if not player.ready.wait(30):
                raise player.failure("was not ready in time")

    def produce(self, events, rate=None):
        """Begins to publish; answers the producer."""
        at_rate = ["--rate", rate] if rate else []
        producer = Player("producer", "producer", self._role(
            "produce", "producer", "--types", 1, "--event-bytes", EVENT_BYTES, "--events", events, *at_rate,
        ), self.environment)
        self.players["producer"] = producer
        producer.start()
        return producer

    def check(self, down=None):
        """Nobody may have ended, except who was told to."""
        for player in self.players.values():
            if player is not down and not player.lives():
                raise player.failure(f"ended by itself ({player.process.returncode})")

    def tallies(self):
        """How often each subscriber's handler was committed, as Redis counted with the acknowledgement."""
        found = self.redis.call("MGET", *(key(f"{subscriber}:tally") for subscriber in SUBSCRIBERS))
        return [int(count or 0) for count in found]

    def added(self, stream):
        """How many entries a stream ever had, those that were trimmed included."""
        if self.redis.call("EXISTS", key(stream)) == 0:
            return 0
        return self.redis.call("XINFO", "STREAM", key(stream))["entries-added"]

    def status(self):
        command = [self.program, "status", "--output", "json"]
        found = subprocess.run(command, check=True, env=self.environment, stdout=subprocess.PIPE, text=True)
        return json.loads(found.stdout)["items"][0]

    def stop(self):
        for player in self.players.values():
            if player.lives():
                player.process.terminate()
        for player in self.players.values():
            player.stop()


class Strikes:
    """Ends one process after the other, by SIGKILL and SIGTERM in turn, and starts each again."""

    def __init__(self, fleet, every, until):
        # The others run throughout: what leaks would show in them.
        self.victims = [fleet.players[name] for name in ("bench1-worker-1", "router-1", "bench2-worker-1")]
        self.every, self.until, self.next, self.down_for = every, until, every, min(2, every / 3)
        self.done, self.victim, self.ended = [], None, None

    def step(self, now):
        """Does what is due; `now` is in seconds since the start."""
        if self.victim is None:
            if now >= self.next and now + self.every / 2 < self.until:
                count = len(self.done)
                self.victim, self.ended = self.victims[count % len(self.victims)], None
                self.signal = (signal.SIGKILL, signal.SIGTERM)[count % 2]
                self.victim.process.send_signal(self.signal)
                self.done.append({"t": round(now, 1), "process": self.victim.name, "signal": self.signal.name})
                self.next += self.every
        elif self.ended is None:
            if (code := self.victim.process.poll()) is not None:
                if code != (-signal.SIGKILL if self.signal == signal.SIGKILL else 0):
                    raise self.victim.failure(f"ended with {code} when told to stop")
                self.ended = now
            elif now - self.done[-1]["t"] > 40:
                raise self.victim.failure("does not stop")
        elif now >= self.ended + self.down_for:
            self.victim.start()
            self.victim = None


def capacity(fleet, events):
    """Events per second that the whole fleet handles when all are there at once."""
    fleet.produce(events)
    points = []
    deadline = time.monotonic() + 120
    while not points or points[-1][1] < 0.95 * events:
        if time.monotonic() > deadline:
            raise Failed(f"calibration: only {points[-1][1]} of {events} events were handled within 2 minutes")
        fleet.check()
        points.append((time.monotonic(), min(fleet.tallies())))
        time.sleep(0.1)
    # Neither the start nor the events that wait for another attempt.
    start = next(point for point in points if point[1] >= 0.05 * events)
    end = points[-1]
    if end[0] <= start[0]:
        raise Failed("calibration: too few events; give --rate")
    return (end[1] - start[1]) / (end[0] - start[0])
