"""What `tiercel trace info` says of a trace."""

import msgspec
import numpy as np

from tiercel.tune.traces.trace import NO_SESSION, Trace


class HitRates(msgspec.Struct, frozen=True, kw_only=True):
    """Shares that a cache without end would hit; tools differ in which one they quote. None where nothing is counted.

    Attributes:
        blocks: of all blocks of all requests.
        tokens: of all prompt tokens.
        request_mean: of a request's blocks, the mean over requests that have any.
    """

    blocks: float | None
    tokens: float | None
    request_mean: float | None


class SessionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions: their requests, and the seconds between the arrivals of two that follow each other."""

    sessions: int
    requests_in_sessions: int
    turns_mean: float | None
    turns_median: float | None
    turns_max: int
    gap_median_s: float | None
    gap_p90_s: float | None
    gap_p99_s: float | None


class TraceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A trace in numbers. `ideal` counts each block that the trace names, `ideal_full` the full ones, which a cache can hold."""

    name: str
    requests: int
    span_s: float
    requests_waiting: int
    tokens_per_block: int
    input_tokens: int
    output_tokens: int
    input_tokens_mean: float
    input_tokens_max: int
    output_tokens_mean: float
    block_references: int
    distinct_blocks: int
    ideal: HitRates
    ideal_full: HitRates
    sessions: SessionStatistics
    notes: tuple[str, ...]


def summarise_trace(trace: Trace) -> TraceSummary:
    """Return what a trace comes to."""
    held = trace.num_requests or 1
    return TraceSummary(
        name=trace.name,
        requests=trace.num_requests,
        span_s=trace.span_s,
        requests_waiting=trace.num_waiting,
        tokens_per_block=trace.tokens_per_block,
        input_tokens=int(trace.input_tokens.sum()),
        output_tokens=int(trace.output_tokens.sum()),
        input_tokens_mean=float(trace.input_tokens.sum()) / held,
        input_tokens_max=int(trace.input_tokens.max(initial=0)),
        output_tokens_mean=float(trace.output_tokens.sum()) / held,
        block_references=trace.num_references,
        distinct_blocks=int(np.count_nonzero(trace.first_uses < trace.num_requests)),
        ideal=ideal_hit_rates(trace),
        ideal_full=ideal_hit_rates(trace.without_partial_blocks()),
        sessions=_session_statistics(trace),
        notes=trace.notes,
    )


def ideal_hit_rates(trace: Trace) -> HitRates:
    """Return what a cache without end would hit, if each request were stored before the next one came."""
    named, seen = trace.num_blocks_named, trace.num_blocks_seen
    tokens = np.minimum(seen * trace.tokens_per_block, trace.input_tokens)
    held = named > 0
    return HitRates(
        blocks=_share(int(seen.sum()), int(named.sum())),
        tokens=_share(int(tokens.sum()), int(trace.input_tokens.sum())),
        request_mean=float((seen[held] / named[held]).mean()) if held.any() else None,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _session_statistics(trace: Trace) -> SessionStatistics:
    requests = np.flatnonzero(trace.sessions != NO_SESSION)
    order = requests[np.argsort(trace.sessions[requests], kind="stable")]
    sessions, turns = np.unique(trace.sessions[order], return_counts=True)
    gaps = np.diff(trace.arrivals_s[order])[np.diff(trace.sessions[order]) == 0]
    quantiles = [float(value) for value in np.quantile(gaps, (0.5, 0.9, 0.99))] if len(gaps) else [None] * 3
    return SessionStatistics(
        sessions=len(sessions),
        requests_in_sessions=len(requests),
        turns_mean=float(turns.mean()) if len(turns) else None,
        turns_median=float(np.median(turns)) if len(turns) else None,
        turns_max=int(turns.max(initial=0)),
        gap_median_s=quantiles[0],
        gap_p90_s=quantiles[1],
        gap_p99_s=quantiles[2],
    )
