"""A run as one HTML page with pictures drawn in SVG: nothing fetched, light and dark."""

import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel.charts import (
    Scale,
    drawing,
    element,
    path,
    render_figure,
    render_legend,
    render_page,
    render_table,
    render_tile,
    text,
    tooltip,
)
from tiercel.tune.files import write_whole
from tiercel.tune.simulate.result import SimulationResult
from tiercel.tune.simulate.summary import Summary, Times, named_times
from tiercel.tune.simulate.words import hit_rows, quantity, seconds, share, tier_rows, time_rows

_WIDTH = 880
_LEFT, _RIGHT, _TOP = 60, 70, 14
_NUM_BINS = 60
_UNITS = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
_SOURCES = ("disk", "host", "engine", "computed")
"""Where blocks come from; also names of classes in the style sheet."""

_STYLES = {
    "time to first token": "host",
    "end to end": "engine",
    "wait for loads": "disk",
    "wait for the engine": "after",
}


def write_report(file: Path, result: SimulationResult, summary: Summary) -> None:
    """Write the report, replacing what is there. Raises OSError."""
    write_whole(file, render_report(result, summary))


def render_report(result: SimulationResult, summary: Summary) -> str:
    """Return the whole page."""
    parts = [_header(summary)]
    if summary.num_requests:
        parts += [
            render_figure(
                "Where the prompts' blocks came from",
                "Share of the full blocks of the prompts that arrived in each stretch of time.",
                _sources_over_time(result),
                render_legend((name, "engine's own" if name == "engine" else name) for name in _SOURCES),
            ),
            render_figure(
                "Time to first token over time",
                "Median and 99th percentile of the requests that arrived in each stretch of time, on a logarithmic axis.",
                _ttft_over_time(result),
                render_legend((("host", "median"), ("after", "99th percentile"))),
            ),
            render_figure(
                "How long requests took",
                "Share of requests that took at most that long.",
                _distributions(result),
                render_legend((_STYLES[name], name) for name, _ in named_times(summary)),
            ),
        ]
    parts += [
        render_table(("", *(field.removesuffix("_s") for field in Times.__struct_fields__)), time_rows(summary)),
        "<h2>Hit rates</h2><p>The same run by the three weightings in use; compare only what is weighted alike.</p>",
        render_table(("", "all", *summary.hits.blocks_by_tier), hit_rows(summary)),
        "<h2>Tiers</h2>",
        render_table(("", "read", "written", "evicted blocks", "links busy", "waited in queues"), tier_rows(summary)),
        _notes(summary),
    ]
    return render_page(f"Tiercel simulation of {summary.trace}", "".join(parts))


def _header(summary: Summary) -> str:
    tiles = [
        render_tile(share(summary.hits.token_weighted), "of prompt tokens needed no prefill"),
        render_tile(seconds(summary.ttft.p50_s), "to the first token, median"),
        render_tile(seconds(summary.ttft.p99_s), "to the first token, 99th percentile"),
        render_tile(quantity(summary.gpu_seconds_saved / 3600), "GPU-hours of prefill saved"),
    ]
    wear = summary.wear
    if wear is not None:
        years = "" if wear.years is None else f", {quantity(wear.years)} years to the drive's endurance"
        tiles.append(render_tile(f"{quantity(wear.bytes_per_day / 1e12)} TB", f"written to disk a day{years}"))
    told = (
        f"{summary.num_requests:,} requests with {summary.input_tokens:,} prompt tokens over {seconds(summary.span_s)}; "
        f"blocks of {summary.tokens_per_block} tokens and {summary.block_bytes / 2**20:.4g} MiB."
    )
    return (
        f"<header><h1>Simulation of {escape(summary.trace)}</h1><p>{escape(told)}</p></header>"
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


def _notes(summary: Summary) -> str:
    lines = [f"{name}: {count:,} times" for name, count in summary.refused.items()]
    refused = "<h2>Refused or given up</h2>" + _list(lines) if lines else ""
    return refused + ("<h2>Assumed</h2>" + _list(summary.notes) if summary.notes else "")


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _bins(result: SimulationResult) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The stretch of time that each request arrived in, and the edges of all."""
    last = float(result.arrived_s.max()) or 1.0
    edges = np.linspace(0.0, last, _NUM_BINS + 1)
    return np.minimum(np.digitize(result.arrived_s, edges) - 1, _NUM_BINS - 1), edges


def _sources_over_time(result: SimulationResult) -> str:
    height, bottom = 240, 200
    bins, edges = _bins(result)
    x = Scale(0, float(edges[-1]), _LEFT, _WIDTH - _RIGHT)
    y = Scale(0, 1, bottom, _TOP)
    blocks = {"engine": result.gpu_blocks}
    blocks |= {tier.name.lower(): hits for tier, hits in result.hit_blocks.items()}
    full = np.bincount(bins, result.full_blocks, _NUM_BINS)
    shares = {name: np.bincount(bins, counts, _NUM_BINS) / np.maximum(full, 1) for name, counts in blocks.items()}
    shares["computed"] = np.where(full > 0, 1 - sum(shares.values()), 0.0)
    marks = [_share_lines(y)]
    base = np.zeros(_NUM_BINS)
    for name in _SOURCES:
        for number, part in enumerate(shares.get(name, np.zeros(_NUM_BINS)).tolist()):
            if part > 0:
                top, left = y(base[number] + part), x(float(edges[number]))
                told = tooltip(f"{seconds(float(edges[number]))}: {part:.0%} {name}")
                width = max(x(float(edges[number + 1])) - left - 1, 1)
                size = y(base[number]) - top
                marks.append(element("rect", told, x=left, y=top, width=width, height=size, class_=f"mark {name}"))
        base += shares.get(name, 0.0)
    marks.append(_time_axis(x, bottom))
    return drawing(_WIDTH, height, *marks, title="Share of full blocks by source, over time of arrival")


def _ttft_over_time(result: SimulationResult) -> str:
    height, bottom = 240, 200
    bins, edges = _bins(result)
    lines = _percentiles(result.ttft_s, bins, (50, 99))
    values = np.concatenate([line for line in lines if len(line)])[:, 1]
    low, high = max(float(values.min()), 1e-6), max(float(values.max()), 2e-6)
    x = Scale(0, float(edges[-1]), _LEFT, _WIDTH - _RIGHT)
    y = Scale(low * 0.8, high * 1.25, bottom, _TOP, logarithmic=True)
    marks = []
    for tick in y.ticks():
        marks.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(tick), y2=y(tick), class_="grid"))
        marks.append(text(_LEFT - 8, y(tick) + 4, seconds(tick), anchor="end"))
    middles = (edges[:-1] + edges[1:]) / 2
    for line, style in zip(lines, ("host", "after"), strict=True):
        points = [(x(float(middles[int(number)])), y(value)) for number, value in line.tolist()]
        marks.append(path(points, style=f"line {style}"))
    marks.append(_time_axis(x, bottom))
    return drawing(_WIDTH, height, *marks, title="Time to first token over time of arrival")


def _percentiles(
    values: NDArray[np.float64], bins: NDArray[np.intp], wanted: tuple[int, ...]
) -> list[NDArray[np.float64]]:
    """Of each percentile, (bin, value) where there are values."""
    order = np.argsort(bins, kind="stable")
    starts = np.searchsorted(bins[order], np.arange(_NUM_BINS + 1))
    rows = [
        (number, *np.percentile(values[order[start:stop]], wanted))
        for number, (start, stop) in enumerate(itertools.pairwise(starts))
        if stop > start
    ]
    table = np.array(rows, np.float64)
    return [table[:, [0, column + 1]] for column in range(len(wanted))]


def _distributions(result: SimulationResult) -> str:
    height, bottom = 260, 216
    times = {"time to first token": result.ttft_s, "end to end": result.ended_s - result.arrived_s}
    if len(result.ready_s):
        times |= {"wait for loads": result.ready_s - result.arrived_s}
        times |= {"wait for the engine": result.started_s - result.ready_s}
    high = max(float(values.max()) for values in times.values()) or 1e-3
    x = Scale(max(min(high / 1e4, 1e-3), 1e-6), high, _LEFT, _WIDTH - _RIGHT, logarithmic=True)
    y = Scale(0, 1, bottom, _TOP)
    marks = [_share_lines(y)]
    for tick in x.ticks():
        marks.append(element("line", x1=x(tick), x2=x(tick), y1=_TOP, y2=bottom, class_="grid"))
        marks.append(text(x(tick), bottom + 17, seconds(tick), anchor="middle"))
    shares = np.linspace(0, 1, 101)
    for name, values in times.items():
        steps = np.quantile(values, shares)
        marks.append(path([(x(step), y(part)) for step, part in zip(steps.tolist(), shares.tolist(), strict=True)],
                          style=f"line {_STYLES[name]}"))  # fmt: skip
    return drawing(_WIDTH, height, *marks, title="Distribution of times over all requests")


def _share_lines(y: Scale) -> str:
    marks = []
    for part in (0, 0.25, 0.5, 0.75, 1):
        marks.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(part), y2=y(part), class_="grid"))
        marks.append(text(_LEFT - 8, y(part) + 4, f"{part:.0%}", anchor="end"))
    return "".join(marks)


def _time_axis(x: Scale, bottom: float) -> str:
    unit, scale = next(((unit, scale) for unit, scale in _UNITS if x.high >= 2 * scale), _UNITS[-1])
    ticks = Scale(0, x.high / scale, x.start, x.stop).ticks(8)
    marks = [text(x(tick * scale), bottom + 17, f"{tick:g} {unit}" if tick else "0", anchor="middle") for tick in ticks]
    marks.append(text((x.start + x.stop) / 2, bottom + 34, "time of arrival", anchor="middle"))
    return "".join(marks)
