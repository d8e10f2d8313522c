"""The report's pictures, each from a result to an SVG. Colours are classes; the page's style sheet has them."""

from collections.abc import Callable

from tiercel.charts import Scale, drawing, element, path, text, tooltip
from tiercel.demo.results import LABELS, DemoResult, Served, Source, quantile
from tiercel.demo.table import milliseconds

WIDTH = 880
_LEFT, _RIGHT = 170, 20
SOURCES = ("computed", "engine", "host", "disk")
"""Where tokens come from, slowest to make first; also names of classes in the style sheet."""

_COLOUR = {
    Source.COMPUTED: "computed",
    Source.ENGINE: "engine",
    Source.HOST: "host",
    Source.DISK: "disk",
    Source.DISK_AFTER_KILL: "after",
}


def seconds_text(seconds: float) -> str:
    """A time for an axis or a label: in ms below one second."""
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def ttft_strips(result: DemoResult) -> str:
    """Draw a row for each source: every request's time to first token, above the same request's without Tiercel."""
    served = [one for source in Source for one in result.of(source)]
    times = [one.answer.ttft_s for one in served] + [one.without.ttft_s for one in served]
    x = Scale(min(times) * 0.8, max(times) * 1.25, _LEFT, WIDTH - _RIGHT, logarithmic=True)
    shown = [source for source in Source if result.of(source)]
    row = 58
    height = 24 + row * len(shown) + 30
    marks = [_vertical_axis_lines(x, 14, height - 30, seconds_text)]
    for index, source in enumerate(shown):
        top = 24 + index * row
        marks.append(_strip(result.of(source), source, x, top))
    return drawing(WIDTH, height, *marks, title="Time to first token of every request, by where its KV came from")


def _strip(served: list[Served], source: Source, x: Scale, top: int) -> str:
    marks = [
        text(_LEFT - 14, top + 19, LABELS[source], anchor="end", style="label strong"),
        text(_LEFT - 14, top + 36, f"{len(served)} requests", anchor="end", style="label faint"),
    ]
    for one in served:
        where = f"request {one.turn.request}: {one.answer.num_prompt_tokens} tokens"
        pairs = (
            (one.without.ttft_s, top + 34, "mark without"),
            (one.answer.ttft_s, top + 15, f"mark {_COLOUR[source]}"),
        )
        for seconds, y, style in pairs:
            told = tooltip(f"{where}, {milliseconds(seconds)} ms")
            marks.append(element("circle", told, cx=x(seconds), cy=y, r=4.5, class_=style))
    for values, y in (
        ([one.without.ttft_s for one in served], top + 34),
        ([one.answer.ttft_s for one in served], top + 15),
    ):
        middle = x(quantile(values, 0.5))
        told = tooltip(f"median {milliseconds(quantile(values, 0.5))} ms")
        marks.append(element("line", told, x1=middle, x2=middle, y1=y - 9, y2=y + 9, class_="median"))
    return "".join(marks)


def hits_over_time(result: DemoResult) -> str:
    """Draw a column for each request: shares of its prompt by source; the line is the share not computed so far."""
    height, top, bottom = 230, 18, 190
    y = Scale(0, 1, bottom, top)
    x = _request_scale(result)
    width = (x.stop - x.start) / len(result.served)
    marks = [_horizontal_axis_lines(y)]
    reused = total = 0
    line: list[tuple[float, float]] = []
    for index, one in enumerate(result.served):
        shares = _shares(one)
        base = 0.0
        for source in SOURCES[::-1]:
            if shares[source]:
                told = tooltip(f"request {one.turn.request}: {shares[source]:.0%} from {source}")
                marks.append(
                    element(
                        "rect",
                        told,
                        x=x(index) + 1,
                        width=max(width - 2, 1),
                        y=y(base + shares[source]),
                        height=y(base) - y(base + shares[source]),
                        class_=f"mark {source}",
                    )
                )
            base += shares[source]
        reused += sum(one.answer.reused_tokens.values())
        total += one.answer.num_prompt_tokens
        line.append((x(index) + width / 2, y(reused / total)))
    marks += [path(line, style="line halo"), path(line, style="line ink")]
    marks.append(text(x.stop + 6, line[-1][1] + 4, f"{reused / total:.0%}", style="label strong"))
    marks.append(text(x.stop + 6, line[-1][1] + 18, "so far"))
    marks.append(_kill_line(result, x, top, bottom))
    marks.append(_request_axis(x, bottom))
    return drawing(WIDTH, height, *marks, title="Share of each prompt by source, in the order of requests")


def occupancy_over_time(result: DemoResult) -> str:
    """Draw how full the engine's own cache and each tier were after each request."""
    height, top, bottom = 230, 18, 190
    y = Scale(0, 1, bottom, top)
    x = _request_scale(result)
    width = (x.stop - x.start) / len(result.served)
    marks = [_horizontal_axis_lines(y)]
    ends: list[tuple[float, str]] = []
    for name in ("engine", "host", "disk"):
        pieces: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for index, one in enumerate(result.served):
            for use in one.answer.tiers:
                if use.tier == name:
                    pieces[one.after_kill].append((x(index) + width / 2, y(use.used_blocks / use.num_blocks)))
        marks += [path(points, style=f"line {name}") for points in pieces.values() if points]
        if pieces[True]:
            ends.append((pieces[True][-1][1], name))
    marks += _end_labels(ends, x.stop + 6)
    marks.append(_kill_line(result, x, top, bottom))
    marks.append(_request_axis(x, bottom))
    return drawing(WIDTH, height, *marks, title="Occupancy of the engine's cache, the host tier and the disk tier")


def _end_labels(ends: list[tuple[float, str]], x: float) -> list[str]:
    """Name each line at its end, pushed apart where they meet."""
    labels: list[str] = []
    last = -100.0
    for y, name in sorted(ends):
        last = max(y + 4, last + 14)
        labels.append(text(x, last, name, style="label strong"))
    return labels


def _shares(one: Served) -> dict[str, float]:
    total = one.answer.num_prompt_tokens
    shares = {source: one.answer.reused_tokens.get(source, 0) / total for source in SOURCES}
    shares["computed"] = 1 - sum(shares.values())
    return shares


def _request_scale(result: DemoResult) -> Scale:
    return Scale(0, len(result.served), 50, WIDTH - 60)


def _request_axis(x: Scale, bottom: int) -> str:
    marks = [text(x(tick), bottom + 16, f"{tick:g}", anchor="middle") for tick in x.ticks(10)]
    marks.append(text((x.start + x.stop) / 2, bottom + 34, "requests answered", anchor="middle", style="label faint"))
    return "".join(marks)


def _kill_line(result: DemoResult, x: Scale, top: int, bottom: int) -> str:
    first = next((i for i, one in enumerate(result.served) if one.after_kill), len(result.served))
    at = x(first)
    line = element("line", x1=at, x2=at, y1=top - 6, y2=bottom, class_="kill")
    return line + text(at + 5, top - 6, "SIGKILL, restart", style="label strong")


def _horizontal_axis_lines(y: Scale) -> str:
    marks = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        marks.append(element("line", x1=50, x2=WIDTH - 60, y1=y(share), y2=y(share), class_="grid"))
        marks.append(text(42, y(share) + 4, f"{share:.0%}", anchor="end"))
    return "".join(marks)


def _vertical_axis_lines(x: Scale, top: float, bottom: float, name: Callable[[float], str]) -> str:
    marks = []
    for tick in x.ticks():
        marks.append(element("line", x1=x(tick), x2=x(tick), y1=top, y2=bottom, class_="grid"))
        marks.append(text(x(tick), bottom + 17, name(tick), anchor="middle"))
    return "".join(marks)
