"""Memory, latency and keys over time, one above the other, as SVG."""

from html import escape
from math import ceil, floor, log10

WIDTH, LEFT, RIGHT, HEIGHT, GAP = 860, 80, 20, 110, 46
COLOURS = ["#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#57606a"]
STRUCK = {"SIGKILL": "#cf222e", "SIGTERM": "#8c959f"}
STYLE = (
    "text { font: 12px sans-serif; fill: #24292f } .title { font-size: 16px; font-weight: bold } "
    ".head { font-weight: bold } .note { fill: #57606a }"
)


def panels(results):
    """Heading, whether its scale is logarithmic, and lines: name and values by sample."""
    samples = results["samples"]
    names = list(samples[0]["rss"]) if samples else []

    def megabytes(value):
        return None if value is None else value / 1e6

    rss = [(name, [megabytes(s["rss"][name]) for s in samples]) for name in names]
    yield "Memory of each process (MB)", False, rss
    yield "Memory of Redis (MB)", False, [("used_memory", [megabytes(s["redis_memory"]) for s in samples])]
    latency = [(name, [s["latency"].get(f"{name}_ms") for s in samples]) for name in ("p50", "p99")]
    yield "Latency (ms)", True, latency
    yield "Keys", False, [("keys", [s["keys"] for s in samples])]
    yield "Entries in the stream", False, [("orders", [s["orders"] for s in samples])]


def text(x, y, content, css="", anchor="start", fill=None):
    colour = f' style="fill: {fill}"' if fill else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}"{colour}>{escape(content)}</text>'


def line(x1, y1, x2, y2, stroke):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'


def nice(value):
    """The next of 1, 2, 5, 10, 20, ..."""
    power = 10 ** floor(log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999)


def scale(values, logarithmic):
    """Ticks, and where a value stands between 0 and 1."""
    values = [v for v in values if v is not None] or [1]
    if logarithmic:
        values = [max(v, 0.01) for v in values]
        low, high = floor(log10(min(values))), ceil(log10(max(values)))
        high = max(high, low + 1)
        return [10.0 ** power for power in range(low, high + 1)], lambda v: (log10(max(v, 0.01)) - low) / (high - low)
    step = nice(max(max(values), 1) / 4)
    top = step * ceil(max(max(values), 1) / step)
    return [step * count for count in range(round(top / step) + 1)], lambda v: v / top


def panel(results, top, heading, logarithmic, lines):
    seconds = max([results["seconds"], *(s["t"] for s in results["samples"])])
    bottom, width = top + HEIGHT, WIDTH - LEFT - RIGHT

    def x(t):
        return LEFT + t / seconds * width

    yield text(LEFT, top - 10, heading, "head")
    for number, (name, _) in enumerate(reversed(lines)) if len(lines) > 1 else ():
        colour = COLOURS[(len(lines) - 1 - number) % len(COLOURS)]
        yield text(WIDTH - RIGHT - number * 112, top - 10, name, "note", "end", colour)
    for strike in results["strikes"]:
        yield line(x(strike["t"]), top, x(strike["t"]), bottom, STRUCK[strike["signal"]] + "40")
    ticks, at = scale([v for _, values in lines for v in values], logarithmic)
    for tick in ticks:
        y = bottom - at(tick) * HEIGHT
        yield line(LEFT, y, WIDTH - RIGHT, y, "#d0d7de")
        yield text(LEFT - 8, y + 4, f"{tick:,g}" if tick < 1e6 else f"{tick:,.0f}", "note", "end")
    for number, (_, values) in enumerate(lines):
        # Where there is no value, as while a process is down, the line has a gap.
        parts = [[]]
        for sample, value in zip(results["samples"], values):
            if value is None:
                parts.append([])
            else:
                parts[-1].append(f"{x(sample['t']):.1f},{bottom - at(value) * HEIGHT:.1f}")
        for part in filter(None, parts):
            colour = COLOURS[number % len(COLOURS)]
            yield f'<polyline points="{" ".join(part)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def minutes(results, y):
    seconds = results["seconds"]
    step = nice(seconds / 60 / 8)
    for count in range(floor(seconds / 60 / step) + 1):
        at = LEFT + count * step * 60 / seconds * (WIDTH - LEFT - RIGHT)
        yield text(at, y, f"{count * step:g}", "note", "middle")
    yield text(WIDTH - RIGHT, y + 18, "minutes", "note", "end")


def draw(results):
    rate = f"{results['rate']:,} events/s"
    body = [
        text(24, 34, f"streamfleet {results['version']} for {results['minutes']:g} minutes at {rate}", "title"),
        text(24, 54, f"{results['date']}, {results['cores']} × {results['cpu']}, Redis {results['redis']}", "note"),
        text(24, 72, "Upright lines: a process was ended by SIGKILL (red) or SIGTERM (grey) and started again", "note"),
    ]
    y = 110
    for heading, logarithmic, lines in panels(results):
        body += panel(results, y, heading, logarithmic, lines)
        y += HEIGHT + GAP
    body += minutes(results, y - GAP + 20)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" viewBox="0 0 {WIDTH} {y + 10}">\n'
        f'<style>{STYLE}</style>\n<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )
