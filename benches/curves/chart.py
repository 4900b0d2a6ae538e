"""Small multiples as SVG: what an event costs, by what grows. Text stays text, and the colours follow
what the reader's system prefers, light or dark."""

import math
from html import escape

COLUMNS = 3
CELL, PLOT = (300, 218), (236, 118)
LEFT, TOP = 48, 52
HEAD = 40
LINES = [
    ("redis_us_per_event", "ours", "redis", "Redis, ours"),
    ("redis_us_per_event", "floor", "redis floor", "Redis, floor"),
    ("client_us_per_event", "ours", "client", "our processes"),
    ("client_us_per_event", "floor", "client floor", "the floor's"),
]
STYLE = """
text { font: 11px sans-serif; fill: #24292f }
.title { font-weight: bold; font-size: 12px }
.note { fill: #57606a }
.grid { stroke: #d0d7de; fill: none }
.line { fill: none; stroke-width: 2 }
.redis { stroke: #0969da } .client { stroke: #bc4c00 }
.floor { stroke-dasharray: 4 3; stroke-width: 1.5 }
.dot { fill: #0969da; stroke: none } .dot.client { fill: #bc4c00 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .grid { stroke: #3d444d }
  .redis { stroke: #58a6ff } .client { stroke: #f0883e }
  .dot { fill: #58a6ff } .dot.client { fill: #f0883e }
}
"""


def short(value):
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def text(x, y, content, anchor="start", style=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(content)}</text>'


def line(style, points):
    return f'<polyline class="{style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def horizontal(xs):
    """Where a value stands between 0 and 1: by its logarithm; 0 a step before the first."""
    least, most = min(filter(None, xs), default=1), max(*xs, 1)
    low, high = math.log10(least), math.log10(most)
    if 0 in xs:
        low -= 1
    width = high - low or 1
    return lambda x: (math.log10(x) - low) / width if x else 0.0


def top(most):
    """A round number that is not less."""
    size = 10 ** math.floor(math.log10(most or 1))
    return next(size * step for step in (1, 1.5, 2, 3, 4, 5, 7.5, 10) if size * step >= most)


def panel(left, upper, title, label, axis, rows, get):
    x0, y0 = left + LEFT, upper + TOP
    width, height = PLOT
    drawn = [
        (style, [(row["x"], get(row, figure, side)) for row in rows if get(row, figure, side) is not None])
        for figure, side, style, _ in LINES
    ]
    across = horizontal([row["x"] for row in rows])
    high = top(max((y for _, points in drawn for _, y in points), default=1))

    def place(x, y):
        return x0 + across(x) * width, y0 + height - y / high * height

    yield text(left + 8, upper + 18, title, style="title")
    yield text(left + 8, upper + 34, label, style="note")
    for share in (0, 0.5, 1):
        y = y0 + height - share * height
        yield line("grid", [(x0, y), (x0 + width, y)])
        yield text(x0 - 6, y + 4, f"{high * share:g}", "end", "note")
    last = -math.inf
    for row in rows:
        x = x0 + across(row["x"]) * width
        yield line("grid", [(x, y0 + height), (x, y0 + height + 4)])
        if x - last > 26:
            yield text(x, y0 + height + 17, short(row["x"]), "middle", "note")
            last = x
    yield text(x0 + width / 2, y0 + height + 32, axis, "middle", "note")
    for style, points in drawn:
        if points:
            yield line(f"line {style}", [place(x, y) for x, y in points])
        if "floor" not in style:
            for x, y in (place(*point) for point in points):
                yield f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def draw(panels, get):
    """Each panel: title, label, axis, rows; `get` answers a figure of a row."""
    width = COLUMNS * CELL[0]
    height = HEAD + math.ceil(len(panels) / COLUMNS) * CELL[1]
    body = [text(8, 18, "CPU per event, µs", style="title")]
    x = 150
    for _, _, style, label in LINES:
        body += [line(f"line {style}", [(x, 14), (x + 24, 14)]), text(x + 30, 18, label)]
        x += 140
    for at, given in enumerate(panels):
        left, upper = at % COLUMNS * CELL[0], HEAD + at // COLUMNS * CELL[1]
        body += panel(left, upper, *given, get)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(body) + "\n</svg>\n"
    )
