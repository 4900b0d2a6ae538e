"""What is measured: each curve with its points, as arguments of `streamfleet bench`."""

from dataclasses import dataclass, field

REDIS, CLIENTS, MEMORY = "Redis", "clients", "memory"
ALL = (REDIS, CLIENTS, MEMORY)
HEADLINE = "headline"


@dataclass
class Point:
    """One run. Where its series is not named, each stage is one."""

    x: int
    arguments: list
    series: str = ""


@dataclass
class Curve:
    key: str
    title: str
    # What grows from point to point.
    axis: str
    about: str
    # Per event, or of one process: what should stay as it is.
    constant: tuple
    points: list = field(repr=False)


def headline(base, quick):
    """The arguments of the run that the README quotes."""
    rounds = {"--repeat": 1, "--rate-seconds": 2} if quick else {"--repeat": 3}
    return arguments({"--events": base, "--handlers": "none,one-effect,follow-up,failing", **rounds})


def arguments(given):
    return [str(word) for pair in given.items() for word in pair if word is not True]


def bench(x, stages, events, series="", **more):
    """A point. `no_floor=True` is an option without a value."""
    options = {f"--{name.replace('_', '-')}": value for name, value in more.items()}
    given = {"--stages": stages, "--events": max(events, 1), "--handlers": "none", **options}
    return Point(x, arguments(given), series)


def curves(base, quick):
    """All of them. Everything is a multiple of `base` events."""
    tenth, half = max(base // 10, 1), max(base // 2, 1)
    runs, bounded = [tenth, base, 10 * base], {"maxlen": base, "inbox_limit": half}
    sizes = [(464, half), (600, half), (2_000, half), (8_000, base // 5), (32_000, tenth), (64_000, tenth)]
    return [
        Curve(
            "events", "Events in one run", "events",
            f"Producer, router and one worker at once. The producer waits while the inbox has more than {half:,} entries; "
            f"the domain stream keeps {base:,} (`maxlen`). The floor keeps all of them"
            + ("." if quick else ", and sits the longest run out."), ALL,
            [bench(n, "end-to-end", n, **bounded) for n in runs]
            + ([] if quick else [bench(100 * base, "end-to-end", 100 * base, **bounded, no_floor=True)]),
        ),
        Curve(
            "backlog", "A backlog", "events waiting",
            "So many events wait in the inbox (route) or in the domain stream (handle) when the processes start.", ALL,
            [bench(n, "route,handle", n) for n in (base, 10 * base)],
        ),
        Curve(
            "stream-length", "History in the domain stream", "settled entries",
            f"{base:,} events are handled from a stream with so many older entries, which everyone has settled.", ALL,
            [bench(n, "handle", base, history=n) for n in runs],
        ),
        Curve(
            "retries", "Deliveries that wait for a retry", "deliveries waiting",
            f"{2 * base:,} events are handled while so many others wait for a retry that is due in a day. Each of those "
            "surfaces once in a lease (30 s) and is parked again; that is part of it. The floor has as many pending "
            "and never looks at them.", ALL,
            [bench(n, "handle", 2 * base, waiting=n) for n in (0, tenth, base)],
        ),
        Curve(
            "types", "Event types", "event types",
            "Routing; each type has a schema of its own. For 200 subscribers, those of 1,000 types are named by a "
            "pattern: routing.yaml has room for 25,000 keys and values.", ALL,
            [bench(n, "route", base, "route, 1 subscriber", types=n) for n in (1, 10, 100, 1_000)]
            + [bench(n, "route", base, "route, 200 subscribers", types=n, subscribers=200) for n in (1, 1_000)],
        ),
        Curve(
            "subscribers", "Subscribers that handle each event", "subscribers",
            "Handling, one worker process each; figures are per delivery, so that they are what one more costs.", ALL,
            [bench(n, "handle", half, subscribers=n) for n in (1, 2, 4, 8)],
        ),
        Curve(
            "recipients", "Subscribers that an event is routed to", "subscribers",
            "Routing alone. Each entry names whom it is for: 15 bytes more for each, and no copy of the event.",
            (MEMORY,), [bench(n, "route", base, subscribers=n) for n in (1, 2, 20, 200)],
        ),
        Curve(
            "payload", "Bytes of an event", "bytes",
            "The smallest has 244 bytes in `data`. Every byte is parsed, validated and stored, so costs grow with "
            "them, but no faster.", (), [bench(size, "route,handle", events, event_bytes=size) for size, events in sizes],
        ),
        Curve(
            "concurrency", "Deliveries that a worker works on at a time", "at a time",
            "Handling; `concurrency` of routing.yaml, which is 16 unless set. The more, the larger are the batches that are "
            "read and settled. With one thread (`--threads`) nothing is handed from thread to thread.", (),
            [bench(n, "handle", 2 * base, "1 thread", concurrency=n) for n in (1, 16, 64, 256, 1_024)]
            + [bench(n, "handle", 2 * base, "2 threads", concurrency=n, threads=2) for n in (1, 16, 64, 256, 1_024)],
        ),
        Curve(
            "workers", "Workers of one subscriber", "workers",
            "Handling, all on the same cores as Redis; memory is that of one.", ALL,
            [bench(n, "handle", base, workers=n) for n in (1, 2, 4, 8)],
        ),
        Curve(
            "routers", "Routers", "routers", "Routing, all on the same cores as Redis; memory is that of one.", ALL,
            [bench(n, "route", base, routers=n) for n in (1, 2, 4)],
        ),
    ]
