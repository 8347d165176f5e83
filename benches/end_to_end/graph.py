"""What happens under too much load, over time, drawn as an SVG without any library."""

import math

from scenarios import OVERLOAD_BEFORE, OVERLOAD_SECONDS

WIDTH, PANEL, LEFT, GAP, TOP = 860, 230, 64, 62, 64
COLOURS = {"Weir": "#d1495b", "Redis": "#444444", "HAProxy": "#2e86ab", "twemproxy": "#6a994e", "Envoy": "#bc6c25"}


def overload(measured):
    """The last round: `{product: figures}` with a timeline in each."""
    series = {name: figures["timeline"] for name, figures in measured.items() if figures.get("timeline")}
    end = max((points[-1]["at"] for points in series.values()), default=1)
    end = min(end, OVERLOAD_BEFORE + OVERLOAD_SECONDS + 10)
    height = TOP + 2 * PANEL + GAP + 50
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
             f'<text x="{LEFT}" y="22" font-size="15">Three times as much as Redis can do, for '
             f'{OVERLOAD_SECONDS} seconds</text>']
    parts += legend(series)
    x = lambda at: LEFT + at / end * (WIDTH - LEFT - 20)
    goodput = lambda share: TOP + PANEL - min(share, 1.3) / 1.3 * PANEL
    parts += panel(TOP, "served, share of what Redis can do", x, end,
                   [(f"{share:.0%}", goodput(share)) for share in (0, 0.25, 0.5, 0.75, 1)])
    below = TOP + PANEL + GAP
    latency = lambda ms: below + PANEL - math.log10(min(max(ms, 1), 100_000)) / 5 * PANEL
    parts += panel(below, "99th percentile of the time until it is served", x, end,
                   [(label, latency(ms)) for ms, label in
                    ((1, "1 ms"), (10, "10 ms"), (100, "100 ms"), (1_000, "1 s"), (10_000, "10 s"), (100_000, "100 s"))])
    for name, points in series.items():
        points = [point for point in smooth(points) if point["at"] <= end]
        colour, width = COLOURS.get(name, "#888888"), 2.5 if name == "Weir" else 1.5
        for key, y in (("served", goodput), ("p99_ms", latency)):
            line = " ".join(f"{x(point['at']):.1f},{y(point[key]):.1f}" for point in points
                            if key == "served" or point["served"])
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    parts.append(f'<text x="{WIDTH / 2}" y="{height - 10}" text-anchor="middle">seconds</text></svg>')
    return "\n".join(parts) + "\n"


def smooth(points):
    """Half seconds: a tenth holds only fifty commands."""
    groups = [points[start:start + 5] for start in range(0, len(points), 5)]
    return [{"at": group[0]["at"], "served": sum(point["served"] for point in group) / len(group),
             "p99_ms": max(point["p99_ms"] for point in group)} for group in groups]


def legend(series):
    parts, x = [], LEFT
    for name in series:
        parts.append(f'<rect x="{x}" y="34" width="14" height="4" fill="{COLOURS.get(name, "#888888")}"/>'
                     f'<text x="{x + 20}" y="41">{name}</text>')
        x += 50 + 8 * len(name)
    return parts


def panel(top, title, x, end, marks):
    parts = [f'<text x="{LEFT}" y="{top - 6}">{title}</text>',
             f'<rect x="{x(OVERLOAD_BEFORE):.1f}" y="{top}" '
             f'width="{x(OVERLOAD_BEFORE + OVERLOAD_SECONDS) - x(OVERLOAD_BEFORE):.1f}" height="{PANEL}" fill="#f4f0e6"/>']
    for label, y in marks:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for second in range(0, int(end) + 1, 5):
        parts.append(f'<text x="{x(second):.1f}" y="{top + PANEL + 16}" text-anchor="middle">{second}</text>')
    return parts
