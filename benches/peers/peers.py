"""The peers: where their versions are pinned, how they are installed and run, what they promise."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "streamfleet", "peers")


def python(requirements, script):
    """A virtual environment of its own for each Python peer, since they need not agree on versions."""
    home = CACHE / Path(requirements).stem

    def install():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([home / "bin/pip", "install", "--quiet", "-r", HERE / "python" / requirements], check=True)

    return [HERE / "python" / requirements], home, install, [home / "bin/python", HERE / "python" / script]


def node():
    home = CACHE / "bullmq"
    files = [HERE / "node" / name for name in ("package.json", "package-lock.json", ".npmrc", "bullmq.js")]

    def install():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for file in files:
            shutil.copy(file, home)
        command = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
        subprocess.run(command, check=True, cwd=home)

    return files, home, install, ["node", home / "bullmq.js"]


def rust(binary):
    home = CACHE / "rust"
    files = [HERE / "rust/Cargo.toml", HERE / "rust/Cargo.lock", *sorted((HERE / "rust/src").rglob("*.rs"))]

    def install():
        environment = {**os.environ, "CARGO_TARGET_DIR": str(home)}
        manifest = ["--manifest-path", HERE / "rust/Cargo.toml"]
        subprocess.run(["cargo", "build", "--release", "--locked", "-j2", *manifest], check=True, env=environment)

    return files, home, install, [home / "release" / binary]


def pinned(file, pattern):
    return re.search(pattern, (HERE / file).read_text())[1]


def owed_by_stream(redis, stream, group):
    [found] = [info for info in redis.call("XINFO", "GROUPS", stream) if info["name"] == group]
    return found["pending"] + found["lag"]


def owed_by_bullmq(redis, queue, _):
    return sum(redis.call("LLEN", f"bull:{queue}:{state}") for state in ("wait", "active"))


def owed_by_celery(redis, queue, _):
    return redis.call("LLEN", queue) + redis.call("HLEN", "unacked")


def owed_by_apalis(redis, queue, _):
    held = sum(redis.call("SCARD", key) for key in redis.call("KEYS", f"{queue}:inflight:*"))
    return held + redis.call("ZCARD", f"{queue}:scheduled") + redis.call("LLEN", f"{queue}:active")


@dataclass(frozen=True)
class Peer:
    key: str
    name: str
    version: str
    kit: tuple
    owed: Callable
    settings: str
    guarantee: str
    # Whether three services read one stream; else each has a queue of its own.
    groups: bool
    fan_out: str
    consume: str = "consume"
    # The most events it is given at all, and in one round.
    at_most: int = 10**9
    in_round: int = 10**9

    def install(self):
        """Once, and again when what is pinned has changed."""
        files, home, install, _ = self.kit
        stamp = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        mark = home / "installed"
        if not mark.is_file() or mark.read_text() != stamp:
            print(f"{self.name}: installing into {home}", file=sys.stderr)
            install()
            mark.write_text(stamp)

    def command(self, *arguments):
        return [*self.kit[3], *arguments]


FASTSTREAM = pinned("python/faststream.txt", r"(?m)^faststream==(.+)$")
CELERY = pinned("python/celery.txt", r"(?m)^celery==(.+)$")
NODE = json.loads((HERE / "node/package.json").read_text())["dependencies"]
SEA_STREAMER = pinned("rust/Cargo.toml", r'sea-streamer-redis = .*"=([^"]+)"')
APALIS = pinned("rust/Cargo.toml", r'apalis-redis = .*"=([^"]+)"')
FASTSTREAM_GUARANTEE = (
    "at least once, if a second subscriber reclaims: by itself it reads only what is new, and what a crashed consumer "
    "held stays pending until something reads the group with `min_idle_time` (XAUTOCLAIM)"
)

PEERS = [
    Peer(
        key="bullmq",
        name="BullMQ",
        version=NODE["bullmq"],
        kit=node(),
        owed=owed_by_bullmq,
        settings=f"Node.js, ioredis {NODE['ioredis']}; addBulk of 1,000; one worker, concurrency 100; removeOnComplete",
        guarantee="at least once: a job whose lock (30 s) is not renewed is stalled and runs again, once; "
        "stalled a second time it fails",
        groups=False,
        fan_out="cannot: three queues, published three times",
    ),
    Peer(
        key="faststream",
        name="FastStream",
        version=FASTSTREAM,
        kit=python("faststream.txt", "faststream_peer.py"),
        owed=owed_by_stream,
        settings="CPython, uvloop, hiredis; publish in a pipeline of 1,000; reads 100, one after the other "
        "(max_workers 10 and 100 took longer), AckPolicy.ACK; no type casting, no log line per message",
        guarantee=FASTSTREAM_GUARANTEE,
        groups=True,
        fan_out="one stream, three groups",
    ),
    Peer(
        key="faststream-batch",
        name="FastStream, in batches",
        version=FASTSTREAM,
        kit=python("faststream.txt", "faststream_peer.py"),
        owed=owed_by_stream,
        settings="the same, but batch=True: the handler is given up to 100 messages, acknowledged together",
        guarantee=FASTSTREAM_GUARANTEE + "; a batch is one: it succeeds or is repeated as a whole",
        groups=True,
        fan_out="one stream, three groups",
        consume="consume-batch",
    ),
    Peer(
        key="celery",
        name="Celery",
        version=CELERY,
        kit=python("celery.txt", "celery_peer.py"),
        owed=owed_by_celery,
        settings="CPython, hiredis, JSON; kombu's Producer.batch of 1,000; acks_late, prefetch multiplier 128, no "
        "results, events, gossip or mingle; pool solo (threads and prefork took longer)",
        guarantee="at least once with acks_late: what a crashed worker held is put back after the visibility timeout, "
        "1 h by default; a task that runs longer runs twice",
        groups=False,
        fan_out="an exchange bound to three queues: published once, stored three times",
        at_most=20_000,
    ),
    Peer(
        key="sea-streamer",
        name="sea-streamer",
        version=SEA_STREAMER,
        kit=rust("sea-streamer"),
        owed=owed_by_stream,
        settings="Tokio; pipelined send; ConsumerMode::LoadBalanced, AutoCommit::Rolling with ack after the handler, "
        "batch 100",
        guarantee="at least once: acknowledged about once a second, so that a crash repeats up to a second's work; "
        "what it held is claimed after 60 s idle",
        groups=True,
        fan_out="one stream, three groups",
    ),
    Peer(
        key="apalis",
        name="apalis",
        version=APALIS,
        kit=rust("apalis"),
        owed=owed_by_apalis,
        settings="Tokio; push_bulk of 1,000; batch 1,000, no locks, no events (parallelize took longer); "
        "published and handled 5,000 at a time, because a backlog of about 8,000 stops its worker",
        guarantee="at least once: jobs of a worker without a heartbeat for 300 s are queued again",
        groups=False,
        fan_out="cannot: three queues, published three times",
        in_round=5_000,
    ),
]
