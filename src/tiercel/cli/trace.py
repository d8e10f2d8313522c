"""`tiercel trace`: what traces of requests hold, and from one format to another."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.render import print_json, print_line, print_table, seconds_text

if TYPE_CHECKING:
    from tiercel.tune.traces import Trace, TraceSummary
    from tiercel.tune.traces.summary import HitRates

Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """What a trace's file does not say.

    Attributes:
        format: the format, if it is not found out.
        tokens_per_block: tokens of a block in a file that does not say, or of a block to make where it holds tokens or text.
        arrivals_per_s: requests or sessions a second, where the file has no times.
        seed: of such arrivals, and of the blocks' keys in a simulation; runs of one seed are equal.
        tokenizer: a tokenizer.json for a file that holds text; without it a token is a byte.
    """

    format: str | None = None
    tokens_per_block: int | None = None
    arrivals_per_s: float | None = None
    seed: int = 0
    tokenizer: Path | None = None

    def read(self, path: Path) -> "Trace":
        """Read a trace so."""
        from tiercel.tune.traces import ReadOptions, load_tokenizer, read_trace
        from tiercel.tune.traces.tokens import bytes_tokenizer

        options = ReadOptions(
            tokens_per_block=self.tokens_per_block,
            arrivals_per_s=self.arrivals_per_s,
            seed=self.seed,
            tokenizer=bytes_tokenizer if self.tokenizer is None else load_tokenizer(self.tokenizer),
        )
        return read_trace(path, self.format, options=options)


_DEFAULTS = TraceOptions()


def info(*files: Path, options: TraceOptions = _DEFAULTS, json: Flag = False) -> None:
    """Show what traces hold: requests, tokens, blocks, what they share at best, and sessions.

    Args:
        files: traces of any format, or folders of WEKA's sessions.
        json: print JSON, an object per file, in a list.
    """
    from tiercel.tune.traces import summarise_trace

    if not files:
        raise ValueError("name a trace: tiercel trace info FILE...")
    summaries = [(file, summarise_trace(options.read(file))) for file in files]
    if json:
        print_json([{"file": str(file), "trace": summary} for file, summary in summaries])
        return
    for file, summary in summaries:
        _print_summary(file, summary)


def convert(
    source: Path,
    target: Path,
    /,
    *,
    to: str,
    reblock: int | None = None,
    options: TraceOptions = _DEFAULTS,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Write a trace in another format, and say what that format cannot hold of it.

    Args:
        source: a trace of any format, or a folder of WEKA's sessions.
        target: the file to write; compressed if it is called .gz.
        to: the format to write: mooncake, bailian, token-ids, aiperf-inputs or tiercel, which holds all.
        reblock: cut or join blocks to this many tokens before writing.
        overwrite: replace the target if it exists.
        json: print JSON.
    """
    from tiercel.tune.traces import WRITTEN, with_tokens_per_block, write_trace

    if to not in WRITTEN:
        raise ValueError(f"--to {to}: must be one of {', '.join(WRITTEN)}")
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists; give --overwrite to replace it")
    trace = options.read(source)
    if reblock is not None:
        trace = with_tokens_per_block(trace, reblock)
    lost = write_trace(trace, target, to)
    if json:
        print_json({"file": str(target), "requests": trace.num_requests, "notes": trace.notes, "lost": lost})
        return
    print_line(f"{target}: {trace.num_requests} requests, blocks of {trace.tokens_per_block} tokens, as {to}")
    for note in trace.notes:
        print_line(f"note: {note}")
    for what in lost:
        print_line(f"lost: {what}")


def _print_summary(file: Path, summary: "TraceSummary") -> None:
    from tiercel.tune.traces.trace import printable

    sessions = summary.sessions
    rows = [
        ("requests", f"{summary.requests} over {seconds_text(summary.span_s)}"),
        ("waiting for another's end", f"{summary.requests_waiting}"),
        (
            "prompt tokens",
            f"{summary.input_tokens}, {summary.input_tokens_mean:.1f} a request, {summary.input_tokens_max} at most",
        ),
        ("answer tokens", f"{summary.output_tokens}, {summary.output_tokens_mean:.1f} a request"),
        (
            f"blocks of {summary.tokens_per_block} tokens",
            f"{summary.block_references}, {summary.distinct_blocks} different",
        ),
        *_rate_rows("ideal hit rate", summary.ideal),
        *_rate_rows("of full blocks alone", summary.ideal_full),
        ("sessions", f"{sessions.sessions} of {sessions.requests_in_sessions} requests"),
    ]
    if sessions.turns_mean is not None:
        text = f"{sessions.turns_mean:.1f} mean, {sessions.turns_median:g} median, {sessions.turns_max} at most"
        rows.append(("turns a session", text))
    if sessions.gap_median_s is not None and sessions.gap_p90_s is not None and sessions.gap_p99_s is not None:
        gaps = [seconds_text(gap) for gap in (sessions.gap_median_s, sessions.gap_p90_s, sessions.gap_p99_s)]
        rows.append(("from turn to turn", f"{gaps[0]} median, {gaps[1]} P90, {gaps[2]} P99"))
    print_table(printable(str(file)), ("what", "value"), rows)
    for note in summary.notes:
        print_line(f"note: {note}")


def _rate_rows(title: str, rates: "HitRates") -> list[tuple[str, str]]:
    named = (("by blocks", rates.blocks), ("by tokens", rates.tokens), ("mean per request", rates.request_mean))
    return [(f"{title}, {name}", "none" if rate is None else f"{rate:.1%}") for name, rate in named]
