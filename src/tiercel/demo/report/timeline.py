"""The report's picture of one request: what happened between its arrival and its last token."""

from tiercel.charts import Scale, drawing, element, text, tooltip
from tiercel.demo.messages import Answer, SpanRecord
from tiercel.demo.report.charts import WIDTH, seconds_text
from tiercel.demo.results import DemoResult, Served, Source
from tiercel.demo.table import milliseconds

_LEFT = 110
_LANE = 30
_LANES = ("lookup", "load", "copy", "prefill", "decode", "settle", "store")


def choose_request(result: DemoResult) -> Served | None:
    """Return the request to draw: a hit that shows as much as possible, from disk after the kill if there is one."""
    hits = [one for source in (Source.DISK_AFTER_KILL, Source.DISK, Source.HOST) for one in result.of(source)]
    return max(hits, key=lambda one: len({span.kind for span in one.answer.spans}), default=None)


def compare_request(one: Served) -> str:
    """Draw the request without Tiercel above the same one with it, on one axis."""
    x = Scale(0, max(one.without.total_s, one.answer.total_s) * 1.12, _LEFT, WIDTH - 20)
    height = 2 * 38 + 34
    marks = [_axis(x, height - 28)]
    for index, (name, answer) in enumerate((("without", one.without), ("with Tiercel", one.answer))):
        y = 8 + index * 38
        marks.append(text(_LEFT - 12, y + 17, name, anchor="end", style="label strong"))
        marks += [
            _bar(span, x, y + 2, 20) for span in answer.spans if span.kind in ("load", "copy", "prefill", "decode")
        ]
        marks.append(_first_token(answer, x, y, y + 26))
        note = f"first token {milliseconds(answer.ttft_s)} ms"
        fits = x(answer.total_s) + 7 + 6.5 * len(note) < WIDTH
        marks.append(
            text(x(answer.total_s) + 7, y + 17, note)
            if fits
            else text(x(answer.ttft_s) - 7, y + 17, note, anchor="end")
        )
    return drawing(WIDTH, height, *marks, title="One request without Tiercel and with it")


def request_timeline(one: Served) -> str:
    """Draw every span of the request with Tiercel, a lane for each kind."""
    answer = one.answer
    lanes = [kind for kind in _LANES if any(span.kind == kind for span in answer.spans)]
    end = max([answer.total_s, *(span.stop_s for span in answer.spans)])
    x = Scale(0, end * 1.02, _LEFT, WIDTH - 20)
    bottom = 22 + _LANE * len(lanes)
    marks = [_axis(x, bottom)]
    for index, kind in enumerate(lanes):
        y = 18 + index * _LANE
        marks.append(text(_LEFT - 12, y + 15, kind, anchor="end", style="label strong"))
        spans = [span for span in answer.spans if span.kind == kind]
        marks += [_bar(span, x, y + 2, 18) for span in spans]
        marks.append(_lane_note(kind, spans, x, y + 15))
    marks.append(_first_token(answer, x, 14, bottom))
    at = x(answer.ttft_s)
    side = ("start", at + 5) if at < WIDTH / 2 else ("end", at - 5)
    note = f"first token, {milliseconds(answer.ttft_s)} ms"
    marks.append(text(side[1], 11, note, anchor=side[0], style="label strong"))
    return drawing(WIDTH, bottom + 28, *marks, title="What one request did, and when")


def _lane_note(kind: str, spans: list[SpanRecord], x: Scale, y: float) -> str:
    """Say behind a lane's last bar what it amounts to, or before its first one if there is no room."""
    seconds = sum(span.stop_s - span.start_s for span in spans)
    tokens = sum(span.num_tokens for span in spans)
    details = ", ".join(dict.fromkeys(span.detail for span in spans if span.detail and span.detail != "running"))
    note = f"{milliseconds(seconds)} ms"
    if kind in ("load", "prefill", "decode", "store"):
        note += f", {tokens:,} tokens"
    if details:
        note += f", from {details.replace('+', ' and ')}"
    stop = x(max(span.stop_s for span in spans))
    if stop + 7 * len(note) > WIDTH - 20:
        return text(x(min(span.start_s for span in spans)) - 7, y, note, anchor="end")
    return text(stop + 7, y, note)


def _bar(span: SpanRecord, x: Scale, y: float, height: float) -> str:
    start, stop = x(span.start_s), x(span.stop_s)
    told = tooltip(
        f"{span.kind}: {milliseconds(span.stop_s - span.start_s)} ms, {span.num_tokens} tokens {span.detail}"
    )
    width = max(stop - start - 1, 2)
    return element("rect", told, x=start, y=y, width=width, height=height, rx=2, class_=f"mark span-{span.kind}")


def _first_token(answer: Answer, x: Scale, top: float, bottom: float) -> str:
    at = x(answer.ttft_s)
    return element("line", x1=at, x2=at, y1=top, y2=bottom, class_="kill")


def _axis(x: Scale, bottom: float) -> str:
    marks = []
    for tick in x.ticks(8):
        marks.append(element("line", x1=x(tick), x2=x(tick), y1=4, y2=bottom, class_="grid"))
        marks.append(text(x(tick), bottom + 17, "0" if tick == 0 else seconds_text(round(tick, 6)), anchor="middle"))
    return "".join(marks)
