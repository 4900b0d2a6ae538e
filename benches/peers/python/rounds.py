"""What the Python peers share: their arguments, and the talk with `benches/peers/run`.

    PEER produce PORT COUNT FILE QUEUE...
    PEER consume PORT COUNT QUEUE GROUP
"""

import json
import sys

role, port, count, *rest = sys.argv[1:]
count = int(count)


def events():
    with open(rest[0], encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def ready():
    print("ready", flush=True)


def wait():
    """Waits for the next round; false if there is none."""
    return bool(sys.stdin.readline())


def done(handled):
    print("done", handled, flush=True)
