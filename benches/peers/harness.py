"""The machine, a private Redis, the processes of a peer, and what a phase costs each of them."""

import json
import os
import platform
import re
import select
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PATIENCE = 300


class Failed(Exception):
    """What a peer could not do, and what it said."""


def cpu():
    model = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return model[1] if model else platform.machine()


def slug(report):
    """What was measured on, as part of a file name."""
    words = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@", "", report["cpu"]).lower()
    return f"{report['cores']}-core-{'-'.join(re.findall('[a-z0-9.]+', words))}"


class Redis:
    """A redis-server of our own: TCP unless told to, because not every peer speaks Unix sockets; nothing on disk."""

    def __init__(self, folder, unix=False):
        if unix:
            path = str(Path(folder, "redis.sock"))
            self.port, self.url, self.where = 0, f"unix://{path}", ["-s", path]
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            self.url, self.where = f"redis://127.0.0.1:{self.port}", ["-p", str(self.port)]
        self.log = Path(folder, "redis.log")
        server = os.environ.get("STREAMFLEET_REDIS_SERVER", "redis-server")
        self.process = subprocess.Popen([
            server, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", folder, "--logfile", str(self.log), *(["--unixsocket", path] if unix else []),
        ])

    def wait(self):
        """Until it answers."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self.version = self.info("server")["redis_version"]
                return
            except (subprocess.CalledProcessError, KeyError):
                if time.monotonic() > deadline:
                    raise Failed(f"redis-server did not start: {self.log.read_text()}") from None
                time.sleep(0.05)

    def _cli(self, *arguments):
        command = ["redis-cli", *self.where, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def call(self, *command):
        return json.loads(self._cli("--json", *command))

    def info(self, section):
        lines = self._cli("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu(self):
        info = self.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def memory(self):
        return int(self.info("memory")["used_memory"])

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Process:
    """A producer or a consumer. It says `ready`; each line it is sent starts a round, which it ends
    with `done` and a count; the end of its input ends it."""

    def __init__(self, command, folder, name):
        self.name = name
        self.log = Path(folder, f"{name}.log")
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NODE_ENV": "production"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                cwd=folder, env=environment, start_new_session=True,
            )
        self.said = b""

    def expect(self, word):
        """Waits for a line that begins with a word; answers the rest of it."""
        deadline = time.monotonic() + PATIENCE
        output = self.process.stdout.fileno()
        while True:
            line, end, rest = self.said.partition(b"\n")
            if end:
                self.said = rest
                first, _, more = line.decode(errors="replace").partition(" ")
                if first == word:
                    return more
                continue
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([output], [], [], left)[0]
            chunk = os.read(output, 65536) if readable else b""
            if not chunk:
                what = "ended" if readable else f"said nothing for {PATIENCE} s"
                raise Failed(f"{self.name} {what} before \"{word}\": {self.last_words()}")
            self.said += chunk

    def last_words(self):
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def go(self):
        try:
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name} ended: {self.last_words()}") from None

    def _members(self):
        """All processes of its session, as the fields of /proc/PID/stat after the name."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(fields[3]) == self.process.pid:
                    yield entry, fields

    def cpu(self):
        """User and system time of it and its children, those that ended included."""
        return sum(sum(map(int, fields[11:15])) for _, fields in self._members()) / TICK

    def peak_rss(self):
        total = 0
        for entry, _ in self._members():
            for line in (entry / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.process.stdout.close()


class Phase:
    """What all rounds of one phase took."""

    def __init__(self, redis, processes):
        self.redis, self.processes = redis, processes
        self.seconds = self.client = self.server = 0.0
        self.peak_rss = 0

    @contextmanager
    def round(self, rest=lambda: None):
        """The time ends with what is done here; what `rest` then waits for still costs CPU."""
        client, server = self._client(), self.redis.cpu()
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start
        rest()
        self.client += self._client() - client
        self.server += self.redis.cpu() - server
        self.peak_rss = max(self.peak_rss, max(process.peak_rss() for process in self.processes))

    def _client(self):
        return sum(process.cpu() for process in self.processes)

    def result(self, events):
        return {
            "events_per_second": round(events / self.seconds),
            "seconds": round(self.seconds, 3),
            "client_us_per_event": round(self.client / events * 1e6, 2),
            "redis_us_per_event": round(self.server / events * 1e6, 2),
            "peak_rss_bytes": self.peak_rss,
        }


@contextmanager
def private_redis(prefix="streamfleet-peers-", unix=False):
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        redis = Redis(folder, unix)
        try:
            redis.wait()
            yield redis, folder
        finally:
            redis.stop()
