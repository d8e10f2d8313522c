"""A run in few numbers: hit rates under their names, times, bytes by tier, wear, what was saved. As a message, rows, or CSV.

Tools differ in which hit rate they quote, so each stands here with how it is weighted.
"""

import csv
import io
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.tiers.base import TierName
from tiercel.tune.simulate.result import SimulationResult

_DAY_S = 86_400.0
_YEAR_DAYS = 365.25


class HitRates(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the prompts that needed no computing.

    Attributes:
        block_weighted: of all full blocks.
        token_weighted: of all tokens; those behind a prompt's last full block can never be hit.
        per_request: mean over requests of the share of their full blocks.
        stored: of all full blocks, those that were stored somewhere when their request arrived, loaded or not.
        blocks_by_tier, tokens_by_tier: block-weighted and token-weighted, by where they came from; gpu is the engine's own.
    """

    block_weighted: float
    token_weighted: float
    per_request: float
    stored: float
    blocks_by_tier: dict[str, float]
    tokens_by_tier: dict[str, float]


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took over all requests, in seconds."""

    mean_s: float
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    max_s: float


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What crossed a tier's links.

    Attributes:
        busy_share: time that the links moved bytes, over the run's length; up to 2 where both directions have one each.
        wait_s: time that parts of transfers waited for others, summed over all of them.
    """

    bytes_read: int
    bytes_written: int
    evicted_blocks: int
    busy_share: float
    wait_s: float


class Wear(msgspec.Struct, frozen=True, kw_only=True):
    """What the disk tier's writes do to its device, at the pace of the run; the device may write more than it is told to.

    Attributes:
        bytes_per_day: written by the cache.
        endurance_bytes: what the device may be written; None if nobody said.
        years: until then; None if nobody said, or nothing is written.
    """

    bytes_per_day: float
    endurance_bytes: float | None
    years: float | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run in few numbers.

    Attributes:
        span_s: from the first arrival to the last end.
        ttft: from a request's arrival to its first token. end_to_end: to its last one.
        load_wait: from a request's arrival until it had what it loads. engine_wait: from there until its prefill began.
        prefill_busy_s: seconds in which engines computed prompts.
        gpu_seconds_saved: what computing what was loaded would have taken on top, times the GPUs of an engine.
        refused: how often a queue was full, a budget spent or a deadline passed, by name.
    """

    trace: str
    num_requests: int
    input_tokens: int
    tokens_per_block: int
    block_bytes: int
    span_s: float
    hits: HitRates
    ttft: Times
    end_to_end: Times
    load_wait: Times | None
    engine_wait: Times | None
    tiers: dict[str, Traffic]
    wear: Wear | None
    prefill_busy_s: float
    gpu_seconds_saved: float
    refused: dict[str, int]
    notes: tuple[str, ...]


def summarize(result: SimulationResult, *, endurance_bytes: float | None = None, gpus_per_engine: int = 1) -> Summary:
    """Sum a run up.

    Args:
        endurance_bytes: what the disk tier's device may be written in its life; see `parse_endurance`.
        gpus_per_engine: those that an engine's prefill keeps busy.
    """
    span_s = float(result.ended_s.max() - result.arrived_s.min()) if len(result.ended_s) else 0.0
    known = len(result.ready_s) > 0
    return Summary(
        trace=result.trace,
        num_requests=len(result.input_tokens),
        input_tokens=int(result.input_tokens.sum()),
        tokens_per_block=result.tokens_per_block,
        block_bytes=result.block_bytes,
        span_s=span_s,
        hits=_hit_rates(result),
        ttft=_times(result.ttft_s),
        end_to_end=_times(result.ended_s - result.arrived_s),
        load_wait=_times(result.ready_s - result.arrived_s) if known else None,
        engine_wait=_times(result.started_s - result.ready_s) if known else None,
        tiers=_traffic(result, span_s),
        wear=_wear(result, span_s, endurance_bytes),
        prefill_busy_s=result.prefill_busy_s,
        gpu_seconds_saved=result.prefill_saved_s * gpus_per_engine,
        refused=dict(result.refused),
        notes=result.notes,
    )


def _hit_rates(result: SimulationResult) -> HitRates:
    blocks = {"gpu": int(result.gpu_blocks.sum())}
    blocks |= {tier.name.lower(): int(hits.sum()) for tier, hits in result.hit_blocks.items()}
    full, tokens = int(result.full_blocks.sum()), int(result.input_tokens.sum())
    return HitRates(
        block_weighted=result.block_hit_rate,
        token_weighted=result.token_hit_rate,
        per_request=result.request_hit_rate,
        stored=int(result.matched_blocks.sum()) / full if full else 0.0,
        blocks_by_tier={tier: count / full if full else 0.0 for tier, count in blocks.items()},
        tokens_by_tier={
            tier: count * result.tokens_per_block / tokens if tokens else 0.0 for tier, count in blocks.items()
        },
    )


def _times(seconds: NDArray[np.float64]) -> Times:
    if len(seconds) == 0:
        return Times(mean_s=0.0, p50_s=0.0, p90_s=0.0, p95_s=0.0, p99_s=0.0, max_s=0.0)
    p50, p90, p95, p99 = np.percentile(seconds, (50, 90, 95, 99)).tolist()
    return Times(mean_s=float(seconds.mean()), p50_s=p50, p90_s=p90, p95_s=p95, p99_s=p99, max_s=float(seconds.max()))


def _traffic(result: SimulationResult, span_s: float) -> dict[str, Traffic]:
    return {
        tier.name.lower(): Traffic(
            bytes_read=traffic.blocks_read * result.block_bytes,
            bytes_written=traffic.blocks_written * result.block_bytes,
            evicted_blocks=traffic.evicted,
            busy_share=traffic.busy_s / span_s if span_s else 0.0,
            wait_s=traffic.wait_s,
        )
        for tier, traffic in result.tiers.items()
    }


def _wear(result: SimulationResult, span_s: float, endurance_bytes: float | None) -> Wear | None:
    traffic = result.tiers.get(TierName.DISK)
    if traffic is None or span_s == 0:
        return None
    per_day = traffic.blocks_written * result.block_bytes / span_s * _DAY_S
    years = endurance_bytes / per_day / _YEAR_DAYS if endurance_bytes is not None and per_day else None
    return Wear(bytes_per_day=per_day, endurance_bytes=endurance_bytes, years=years)


def named_times(summary: Summary) -> list[tuple[str, Times]]:
    """What of the times is known, with the names that all outputs give them."""
    named = (
        ("time to first token", summary.ttft),
        ("end to end", summary.end_to_end),
        ("wait for loads", summary.load_wait),
        ("wait for the engine", summary.engine_wait),
    )
    return [(name, times) for name, times in named if times is not None]


def summary_rows(summary: Summary) -> Iterator[tuple[str, str, float | int | None, str]]:
    """Yield (metric, of what, value, unit) for all that is known."""
    hits = summary.hits
    yield "requests", "", summary.num_requests, "requests"
    yield "input", "", summary.input_tokens, "tokens"
    yield "span", "", summary.span_s, "s"
    yield "hit rate, block-weighted", "all", hits.block_weighted, "share"
    for tier, share in hits.blocks_by_tier.items():
        yield "hit rate, block-weighted", tier, share, "share"
    yield "hit rate, token-weighted", "all", hits.token_weighted, "share"
    for tier, share in hits.tokens_by_tier.items():
        yield "hit rate, token-weighted", tier, share, "share"
    yield "hit rate, per request", "all", hits.per_request, "share"
    yield "stored at arrival, block-weighted", "all", hits.stored, "share"
    for name, times in named_times(summary):
        for statistic in Times.__struct_fields__:
            yield name, statistic.removesuffix("_s"), getattr(times, statistic), "s"
    for tier, traffic in summary.tiers.items():
        yield "read", tier, traffic.bytes_read / 1e9, "GB"
        yield "written", tier, traffic.bytes_written / 1e9, "GB"
        yield "evicted", tier, traffic.evicted_blocks, "blocks"
        yield "links busy", tier, traffic.busy_share, "share"
        yield "waited in queues", tier, traffic.wait_s, "s"
    if summary.wear is not None:
        yield "disk wear", "", summary.wear.bytes_per_day / 1e12, "TB/day"
        if summary.wear.years is not None:
            yield "disk lasts", "", summary.wear.years, "years"
    yield "prefill", "", summary.prefill_busy_s, "s"
    yield "GPU time saved", "", summary.gpu_seconds_saved, "GPU-seconds"
    for name, count in summary.refused.items():
        yield "refused or given up", name, count, "times"


def summary_csv(summary: Summary) -> str:
    """The summary as CSV: metric, of, value, unit."""
    return _csv(("metric", "of", "value", "unit"), summary_rows(summary))


def requests_csv(result: SimulationResult) -> str:
    """Every request as CSV, in the order of the trace."""
    columns: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {
        "input_tokens": result.input_tokens,
        "full_blocks": result.full_blocks,
        "matched_blocks": result.matched_blocks,
        "gpu_blocks": result.gpu_blocks,
        **{f"{tier.name.lower()}_blocks": blocks for tier, blocks in result.hit_blocks.items()},
        "arrived_s": result.arrived_s,
        **({"ready_s": result.ready_s} if len(result.ready_s) else {}),
        "started_s": result.started_s,
        "first_token_s": result.first_token_s,
        "ended_s": result.ended_s,
    }
    return _csv(tuple(columns), zip(*(column.tolist() for column in columns.values()), strict=True))


def _csv(head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return written.getvalue()
