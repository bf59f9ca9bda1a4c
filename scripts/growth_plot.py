#!/usr/bin/env python3
"""Draws what growth.sh has measured.

growth_plot.py IN.json OUT.svg           four panels: CPU, memory, start-up, lag of verdicts
growth_plot.py IN.json --table           a Markdown table
growth_plot.py IN.json --project N       what N services would take, on paper: an extrapolation
"""

import argparse
import json
import math
import sys

PANEL = (320, 200)
LEFT, TOP, GAP_X, GAP_Y = 36, 74, 60, 66
SIZE = (LEFT + 2 * PANEL[0] + GAP_X + 40, TOP + 2 * PANEL[1] + GAP_Y + 46)
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #52514e }
.title { font-size: 13px; font-weight: 600; fill: #0b0b0b }
.axis { stroke: #c3c2b7 } .grid { stroke: #e1e0d9 }
.l0 { stroke: #2a78d6 } .d0 { fill: #2a78d6 } .l1 { stroke: #c2571a; stroke-dasharray: 5 3 } .d1 { fill: #c2571a }
.l0, .l1 { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #c3c2b7 } .title { fill: #ffffff } .axis { stroke: #52514e } .grid { stroke: #2c2c2a }
  .l0 { stroke: #3987e5 } .d0 { fill: #3987e5 } .l1 { stroke: #e8834a } .d1 { fill: #e8834a }
}
"""


def middle(value):
    """A figure's worst round where that is what counts, its median, or the plain number; None where nothing was measured."""
    return value.get("worst", value.get("median")) if isinstance(value, dict) else value


def short(value):
    """Three digits, no zeros that say nothing; thousands apart."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}".replace(",", " ")
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(services):
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if services >= unit:
            return f"{services / unit:g}{name}"
    return str(services)


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def text(x, y, words, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escaped(words)}</text>'


def top(values):
    """The end of an axis from zero: 1, 2 or 5 times a power of ten."""
    highest = max(values, default=0) or 1
    power = 10 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 7.5, 10) if step * power >= highest * 1.08 or step == 10)


class Linear:
    """From zero."""

    def __init__(self, values, height):
        self.end, self.height = top(values), height
        self.marks = [0, self.end / 2, self.end]

    def up(self, value):
        return value / self.end * self.height


class Logarithmic:
    """Whole powers of ten."""

    def __init__(self, values, height):
        values = [value for value in values if value > 0] or [1]
        self.low = math.floor(math.log10(min(values) / 1.6))
        high = max(self.low + 1, math.ceil(math.log10(max(values) * 1.6)))
        self.step = height / (high - self.low)
        self.marks = [10.0**power for power in range(self.low, high + 1)]

    def up(self, value):
        return (math.log10(value) - self.low) * self.step if value > 0 else 0.0


# Titles and axes; then each line's name, where its values are, and what they are multiplied by.
PANELS = (
    (
        "Server CPU per heartbeat at 5 000/s, µs",
        Linear,
        ("of all services in turn", "cpu_per_beat_open_us", 1.0),
        ("of 1 000, others quiet", "cpu_per_beat_quiet_us", 1.0),
    ),
    (
        "Resident memory, MB (logarithmic)",
        Logarithmic,
        ("after registration", "rss_registered_bytes", 1e-6),
        ("after a restart", "rss_restarted_bytes", 1e-6),
    ),
    (
        "Start-up, s (logarithmic)",
        Logarithmic,
        ("kill -9 to first beat", "kill_to_first_beat_s", 1.0),
        ("clean start to listening", "clean_start_s", 1.0),
    ),
    ("Verdicts later than due, p99, ms", Linear, ("p99", "lag_p99_us", 1e-3)),
)


def beside(points, bottom):
    """Where the labels of one column go: the highest point's above it, the others' below theirs, if there is room."""
    points = sorted(points)
    above = points[0][0] - 8
    labels = [(above, *points[0][1:])]
    for y, words, number in points[1:]:
        below = y + 16
        if below > bottom - 2:
            # Between the points, or over both.
            below = y - 8
            if below - above < 12:
                labels = [(below - 12, *labels[0][1:]), *labels[1:]]
        labels.append((below, words, number))
    return labels


def panel(rows, x0, y0, title, scale_of, *lines):
    width, height = PANEL
    sizes = [row["services"] for row in rows]
    low, high = math.log10(sizes[0]), math.log10(sizes[-1])
    inset = 30
    at = lambda size: x0 + inset + (math.log10(size) - low) / ((high - low) or 1) * (width - 2 * inset)
    series = []
    for name, key, scale in lines:
        found = [(row["services"], middle(row.get(key))) for row in rows]
        series.append((name, [(size, value * scale) for size, value in found if value is not None]))
    axis = scale_of([value for _, points in series for _, value in points], height)
    level = lambda value: y0 + height - axis.up(value)
    out = [text(x0, y0 - 30, title, ' class="title"')]
    for mark in axis.marks:
        y, kind = level(mark), "axis" if mark == axis.marks[0] else "grid"
        out.append(f'<line class="{kind}" x1="{x0}" y1="{y:.1f}" x2="{x0 + width}" y2="{y:.1f}"/>')
        out.append(text(x0 - 4, y + 4, short(mark), ' text-anchor="end"'))
    for size in sizes:
        out.append(text(at(size), y0 + height + 16, count(size), ' text-anchor="middle"'))
    legend_x = x0
    labels = {}
    for number, (name, points) in enumerate(series):
        out.append(f'<line class="l{number}" x1="{legend_x}" y1="{y0 - 16}" x2="{legend_x + 18}" y2="{y0 - 16}"/>')
        out.append(text(legend_x + 23, y0 - 12, name))
        legend_x += 23 + 6 * len(name) + 24
        path = " ".join(f"{at(size):.1f},{level(value):.1f}" for size, value in points)
        out.append(f'<polyline class="l{number}" points="{path}"/>')
        for size, value in points:
            out.append(f'<circle class="d{number}" cx="{at(size):.1f}" cy="{level(value):.1f}" r="3"/>')
            labels.setdefault(size, []).append((level(value), short(value), number))
    for size, column in labels.items():
        for y, words, number in beside(column, y0 + height):
            out.append(text(at(size), y, words, f' class="d{number}" text-anchor="middle"'))
    return out


def stands_on(found):
    machine, on = found["machine"], found["disk"]
    return (
        f"mepulse {found['mepulse_version']} ({found['build']}), {found['server']['durability']}; {machine['cores']} × "
        f"{machine['cpu_model']}, {machine['ram_bytes'] / 1e9:.0f} GB; {on['filesystem']}, fsync p50 {on['fsync_p50_us']} µs, "
        f"p99 {on['fsync_p99_us']} µs"
    )


def svg(found):
    rows = found["sizes"]
    width, height = SIZE
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        "<title>What mepulse costs as it grows</title>",
        f"<style>{STYLE}</style>",
        text(LEFT, 18, "What mepulse costs with more and more services in the store", ' class="title"'),
    ]
    for number, one in enumerate(PANELS):
        x0 = LEFT + number % 2 * (PANEL[0] + GAP_X)
        y0 = TOP + number // 2 * (PANEL[1] + GAP_Y)
        out += panel(rows, x0, y0, *one)
    out.append(text(LEFT, height - 12, stands_on(found), ' font-size="10"'))
    return "\n".join([*out, "</svg>", ""])


def table(found):
    rows = found["sizes"]
    device = lambda key: lambda row: middle(row["device"][key])
    of = lambda key, scale=1.0: lambda row: None if middle(row.get(key)) is None else middle(row[key]) * scale
    devices = {row["device"]["only_ours"] for row in rows}
    whose = "a device of its own" if devices == {True} else "the whole device" if devices == {False} else "see JSON"
    ms = lambda get: lambda row: None if get(row) is None else get(row) / 1e3
    lines = (
        ("heartbeats/s, 64 connections", of("beats_per_s")),
        ("server CPU per heartbeat at capacity, µs", of("cpu_per_beat_capacity_us")),
        ("server CPU per heartbeat at 5 000/s, µs", of("cpu_per_beat_open_us")),
        ("the same, of 1 000 services, the others quiet, µs", of("cpu_per_beat_quiet_us")),
        ("resident after registration, MB", of("rss_registered_bytes", 1e-6)),
        ("resident after a restart, MB", of("rss_restarted_bytes", 1e-6)),
        ("highest resident while registering, MB", of("hwm_registered_bytes", 1e-6)),
        ("on the disk after registration, MB", of("store_registered_bytes", 1e-6)),
        ("on the disk after the load, MB", of("store_loaded_bytes", 1e-6)),
        ("`kill -9` under load to first heartbeat, worst, s", of("kill_to_first_beat_s")),
        ("clean start to listening, worst, s", of("clean_start_s")),
        ("verdict later than due, p50, ms", ms(of("lag_p50_us"))),
        ("verdict later than due, p99, ms", ms(of("lag_p99_us"))),
        ("verdict later than due, the latest, ms", ms(of("lag_max_us"))),
        (f"bytes to the disk per heartbeat at 1 000/s ({whose})", device("gross_bytes_per_beat")),
        ("the same, less what is written without any", device("bytes_per_beat")),
        ("written without any, kB/s", lambda row: row["device"]["idle_bytes"] and row["device"]["idle_bytes"] / row["device"]["window_s"] / 1e3),
        ("latency there, mean, ms", ms(device("latency_mean_us"))),
        ("latency there, p50, ms", ms(device("latency_p50_us"))),
        ("latency there, p99, ms", ms(device("latency_p99_us"))),
    )
    out = ["| services | " + " | ".join(count(row["services"]) for row in rows) + " |"]
    out.append("|---|" + "---:|" * len(rows))
    out += [f"| {name} | " + " | ".join(short(get(row)) for row in rows) + " |" for name, get in lines]
    out += ["", stands_on(found) + "."]
    rounds = found["method"]["rounds_each"]
    out.append(f"Medians of {rounds} rounds." if rounds > 1 else "One round.")
    failures = sum(row["failures"]["total"] for row in rows)
    if failures:
        out.append(f"**{failures} requests failed.**")
    if not found["complete"]:
        out.append("**The run was not finished.**")
    return "\n".join(out)


def project(found, services):
    if len(found["sizes"]) < 2:
        sys.exit("two sizes are needed to extrapolate")
    small, large = found["sizes"][-2:]
    (n0, n1) = small["services"], large["services"]

    def line(key):
        """Through the two largest sizes; None if a value is missing. It never falls."""
        y0, y1 = middle(small[key]), middle(large[key])
        if y0 is None or y1 is None:
            return None, None
        slope = max(0.0, (y1 - y0) / (n1 - n0))
        return y1 + slope * (services - n1), slope

    cpu = middle(large["cpu_per_beat_capacity_us"])
    capacity = middle(large["beats_per_s"])
    out = [
        f"An extrapolation to {count(services)} services, not a measurement, from {count(n0)} and {count(n1)}:",
        f"y(N) = y({count(n1)}) + (y({count(n1)}) − y({count(n0)})) / ({count(n1)} − {count(n0)}) × (N − {count(n1)}), never falling.",
        f"CPU per heartbeat (at capacity) and capacity are taken as measured at {count(n1)}.",
        "",
        f"| {count(services)} services | extrapolated | for each service |",
        "|---|---:|---:|",
    ]
    for name, key, scale, unit in (
        ("resident after a restart", "rss_restarted_bytes", 1e-9, "GB"),
        ("resident after registration", "rss_registered_bytes", 1e-9, "GB"),
        ("on the disk after the load", "store_loaded_bytes", 1e-9, "GB"),
        ("`kill -9` under load to first heartbeat", "kill_to_first_beat_s", 1.0, "s"),
        ("clean start to listening", "clean_start_s", 1.0, "s"),
    ):
        value, slope = line(key)
        each = "–" if slope is None else f"{short(slope)} B" if unit == "GB" else f"{short(slope * 1e6)} µs"
        out.append(f"| {name} | {short(value if value is None else value * scale)} {unit} | {each} |")
    for interval in (30, 60):
        needed = services / interval
        out.append(
            f"| heartbeats/s at an interval of {interval} s | {short(needed)} | "
            f"{short(needed / capacity * 100)} % of the capacity measured at {count(n1)}; "
            f"{short(needed * cpu / 1e6)} cores at {short(cpu)} µs each |"
        )
    out += ["", f"Single heartbeats; batches take less. {stands_on(found)}."]
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN.json")
    parser.add_argument("svg", metavar="OUT.svg", nargs="?")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--project", metavar="N", type=int)
    options = parser.parse_args()
    if not (options.svg or options.table or options.project):
        parser.error("nothing to do: OUT.svg, --table or --project N")
    with open(options.source, encoding="utf-8") as source:
        found = json.load(source)
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as out:
            out.write(svg(found))
    if options.table:
        print(table(found))
    if options.project:
        print(project(found, options.project))


if __name__ == "__main__":
    main()
