"""All that curves tell of a trace, side by side: LRU, other policies, and the bound, by capacity. What `tiercel curve` shows."""

from collections.abc import Sequence

import msgspec
import numpy as np

from tiercel.config import BLOCKS_MAX
from tiercel.tune.curves.belady import BeladyBound
from tiercel.tune.curves.lru import LruCurve, lru_curve
from tiercel.tune.curves.policies import Miniature, run_policies
from tiercel.tune.curves.sampled import SampledLruCurve, sampled_lru_curve
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import Trace

NUM_CAPACITIES = 12

MINIATURE_ERRORS = {
    "2q": (1.3, 2.9),
    "slru": (0.3, 1.0),
    "lfu": (0.2, 0.6),
    "fifo": (1.4, 2.6),
    "mru": (1.2, 5.5),
    "filo": (0.6, 2.0),
    "arc": (0.3, 1.2),
    "cost": (0.4, 1.2),
}
"""Mean and largest error of a miniature, in points of hit rate, where full runs were made beside it: the worse of two traces
and two rates in docs/curves.md. They are told beside figures and change none."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Hit rates by what is counted. error: one standard error of `blocks`; None where it is exact or not known."""

    blocks: float
    tokens: float
    requests: float
    error: float | None = None


class SurveyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One capacity. bound: the most blocks that any policy could hit (Belady), as a share of all."""

    capacity_tokens: int
    capacity_blocks: int
    policies: dict[str, Rates]
    bound: float


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """A trace's curves.

    Attributes:
        tokens_per_block: of the cache.
        distinct_blocks: that any request has.
        sample_rate: share of the blocks that was followed; 1 for all. Small capacities of policies other than LRU are run at
            a higher rate.
        ideal: of a cache without end, exactly.
        notes: what the trace did not say and was assumed, and how far off miniatures may be.
    """

    trace: str
    tokens_per_block: int
    requests: int
    block_references: int
    distinct_blocks: int
    sample_rate: float
    ideal: Rates
    rows: tuple[SurveyRow, ...]
    notes: tuple[str, ...] = ()


def miniature_notes(policies: Sequence[str], sample_rate: float) -> tuple[str, ...]:
    """Say how far off each policy's figures may be that come from a miniature; a sentence each, none for full runs."""
    if sample_rate >= 1:
        return ()
    return tuple(
        f"{policy} was run in miniature, which was {mean} points off in the mean and {largest} at most where full runs were made "
        f"(docs/curves.md); without --sample it is exact"
        for policy in policies
        for mean, largest in [MINIATURE_ERRORS.get(policy, (None, None))]
        if mean is not None
    )


def survey_trace(
    trace: Trace,
    *,
    policies: Sequence[str] = ("lru",),
    capacities_tokens: Sequence[int] | None = None,
    sample_rate: float = 1.0,
    seed: int = 0,
) -> Survey:
    """Measure a trace's curves.

    Args:
        policies: names of `tiercel.index.EVICTION_POLICIES`; LRU comes from the one pass, the others are run.
        capacities_tokens: room for so many tokens; by default doubled from where LRU begins to hit up to all that it can use.
        sample_rate: share of the blocks to follow; 1 for exact rates.
        seed: chooses the blocks.

    Raises:
        ValueError: a value is out of range, or the trace is inconsistent.
    """
    exact = lru_curve(trace)
    size = trace.tokens_per_block
    tokens = list(default_capacities(exact) if capacities_tokens is None else capacities_tokens)
    blocks = [count // size for count in tokens]
    if tokens and min(tokens) < size:
        raise ValueError(
            f"capacities: {min(tokens)} tokens are less than a block of {size}; give room for one at least"
        )
    if tokens and max(blocks) > BLOCKS_MAX:
        raise ValueError(f"capacities: {max(tokens)} tokens are more than {BLOCKS_MAX} blocks of {size}; give less")
    found: dict[str, list[Rates]] = {}
    if "lru" in policies:
        curve = exact if sample_rate == 1 else sampled_lru_curve(trace, rate=sample_rate, seed=seed)
        found["lru"] = _lru_rates(curve, blocks)
    others = [policy for policy in policies if policy != "lru"]
    for run in run_policies(trace, others, blocks, Miniature(rate=sample_rate, seed=seed)):
        rates = {weighting.value: rate for weighting, rate in run.hit_rates.items()}
        found.setdefault(run.policy, []).append(Rates(**rates))
    bounds = BeladyBound(trace).hit_rates(blocks).tolist()
    return Survey(
        trace=trace.name,
        tokens_per_block=size,
        requests=trace.num_requests,
        block_references=trace.num_references,
        distinct_blocks=int(np.count_nonzero(trace.first_uses < trace.num_requests)),
        sample_rate=sample_rate,
        ideal=_lru_rates(exact, [exact.capacity_max])[0],
        rows=tuple(
            SurveyRow(
                capacity_tokens=tokens[row],
                capacity_blocks=blocks[row],
                policies={policy: found[policy][row] for policy in policies},
                bound=bounds[row],
            )
            for row in range(len(tokens))
        ),
        notes=(*trace.notes, *miniature_notes(others, sample_rate)),
    )


def default_capacities(curve: LruCurve) -> list[int]:
    """Powers of two tokens, at most NUM_CAPACITIES, the last one the first that hits all that LRU can hit."""
    most = max(1, curve.capacity_max) * curve.tokens_per_block
    last = (most - 1).bit_length()
    first = max((curve.tokens_per_block - 1).bit_length(), last - NUM_CAPACITIES + 1)
    return [2**exponent for exponent in range(first, last + 1)]


def _lru_rates(curve: LruCurve | SampledLruCurve, blocks: Sequence[int]) -> list[Rates]:
    columns = np.array([curve.hit_rates(blocks, weighting) for weighting in Weighting]).T.tolist()
    errors = curve.errors(blocks).tolist() if isinstance(curve, SampledLruCurve) else [None] * len(blocks)
    return [
        Rates(blocks=by_block, tokens=by_token, requests=by_request, error=error)
        for (by_block, by_token, by_request), error in zip(columns, errors, strict=True)
    ]
