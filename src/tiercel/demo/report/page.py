"""Puts the report together: one HTML file, nothing fetched, light and dark."""

from html import escape
from pathlib import Path

from tiercel.charts import render_figure, render_legend, render_page, render_table, render_tile
from tiercel.demo.report.charts import hits_over_time, occupancy_over_time, ttft_strips
from tiercel.demo.report.timeline import choose_request, compare_request, request_timeline
from tiercel.demo.results import LABELS, DemoResult, Source, quantile
from tiercel.demo.table import (
    milliseconds,
    speed_ups,
    summary_lines,
    traffic_rows,
    ttft_row,
    verification_lines,
)


def write_report(path: Path, result: DemoResult) -> None:
    """Write the report, replacing what is there. Raises OSError."""
    path.write_text(render_report(result), encoding="utf-8")


def render_report(result: DemoResult) -> str:
    """Return the whole page."""
    one = choose_request(result)
    request = ""
    if one is not None:
        told = (
            f"Request {one.turn.request}, question {one.turn.turn + 1} about "
            f"{result.workload.documents[one.turn.document].name}: {one.answer.num_prompt_tokens:,} prompt tokens, "
            f"KV mostly from: {LABELS[one.source]}."
        )
        request = render_figure("One request", told, compare_request(one) + request_timeline(one), _SPAN_LEGEND)
    body = "".join(
        [
            _header(result),
            render_figure(
                "Time to first token",
                "Every request is a dot, on a logarithmic axis; the bar is the median. The row below each is the same "
                "requests without Tiercel.",
                ttft_strips(result),
                "",
            ),
            render_table(_TTFT_HEAD, _ttft_rows(result)),
            render_figure(
                "Where the prompts' KV came from",
                "A column is a request; the line is the share of all prompt tokens so far that needed no prefill.",
                hits_over_time(result),
                _SOURCE_LEGEND,
            ),
            render_figure(
                "How full each tier was",
                "Share of capacity after each request. The kill empties the engine and the host tier; the disk stays.",
                occupancy_over_time(result),
                "",
            ),
            request,
            "<h2>Bytes moved</h2><p>Bandwidth while a tier was at work, beside what this machine can do: a copy by "
            "one core for the host tier, sequential I/O for the disk.</p>",
            render_table(_TRAFFIC_HEAD, traffic_rows(result)),
            "<h2>What was run</h2><ul>",
            *(f"<li>{escape(line)}</li>" for line in summary_lines(result)),
            "</ul>",
        ]
    )
    return render_page("Tiercel demo", body)


_TTFT_HEAD = ("KV mostly from", "requests", "p50 ms", "p90 ms", "p99 ms", "same without, p50 ms", "speed-up")
_TRAFFIC_HEAD = (
    "source",
    "prompt tokens",
    "share",
    "loaded",
    "GB/s of the machine's",
    "stored",
    "GB/s of the machine's",
)


_SOURCE_LEGEND = render_legend(
    (("disk", "disk"), ("host", "host"), ("engine", "engine's own"), ("computed", "computed"))
)
_SPAN_LEGEND = render_legend(
    (("span-load", "load"), ("span-prefill", "prefill"), ("span-decode", "decode"), ("span-store", "store"))
)


def _header(result: DemoResult) -> str:
    tokens = result.tokens_by_source()
    spared = 1 - tokens["computed"] / sum(tokens.values())
    tiles = [
        render_tile(f"{spared:.0%}", "of prompt tokens needed no prefill"),
        *(
            render_tile(speed_ups(result.of(source)), f"sooner to the first token: {LABELS[source]}, median")
            for source in (Source.HOST, Source.DISK, Source.DISK_AFTER_KILL)
            if result.of(source)
        ),
    ]
    passed = result.verification.passed
    lines = "".join(f"<li>{escape(line)}</li>" for line in verification_lines(result))
    verdict = f'<ul class="verdict {"passed" if passed else "failed"}">{lines}</ul>'
    return (
        "<header><h1>Tiercel demo</h1><p>The same questions about the same documents, without Tiercel and with it; "
        "then the process was killed with SIGKILL, and the next one went on from disk.</p></header>"
        f'<div class="tiles">{"".join(tiles)}</div>{verdict}'
    )


def _ttft_rows(result: DemoResult) -> list[list[str]]:
    everything = list(result.served)
    rows = [[*ttft_row("all, without Tiercel", [answer.ttft_s for answer in result.without]), "", ""]]
    for title, served in (
        ("all, with Tiercel", everything),
        *((LABELS[source], result.of(source)) for source in Source),
    ):
        without = milliseconds(quantile([one.without.ttft_s for one in served], 0.5))
        rows.append([*ttft_row(title, [one.answer.ttft_s for one in served]), without, speed_ups(served)])
    return rows
