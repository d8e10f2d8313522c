"""The hit rate of capacities that the cache does not have: the ghost index, made from the settings and read out.

`Control` shows it every lookup and store; `Cache.hit_curve` gives its answer out, the status and the metrics that of each tier.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tiercel.control.settings import ControlSettings
from tiercel.index import GhostIndex
from tiercel.tiers.base import TierName

SPAN = 8
"""Capacities up to this many times that of all tiers together are told."""

_WINDOW_MIN = 1 << 21
"""Blocks looked up that a curve tells of: the last one to two times so many, or two to four times as many as the tiers hold if
that is more. What came before has faded, so that the curve is about now."""

_NUM_SAMPLES_MIN, _NUM_SAMPLES_MAX = 1 << 10, 1 << 14
"""Blocks that are followed at most: twice as many as the span is expected to hold, within these bounds, so that memory is a
megabyte at most and a lookup meets little of it."""

_HOT_SHARE = 0.0005
_RESOLUTION = 16
"""Distances below a sixteenth of all tiers' capacity may be told up to twice as long; to know them would cost a lookup more."""

_DEFAULT_FACTORS = (0.125, 0.25, 0.5, 1, 2, 4, SPAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class HitCurve:
    """The hit rate that an LRU cache would have had of late, by its capacity. Lookups fade from it as others follow; below an
    eighth of what all tiers hold it may be wrong.

    Attributes:
        capacities_blocks: distinct blocks that it would hold, over all its tiers together.
        hit_rates: share of the blocks looked up that it would have had, of each capacity.
        errors: one standard error of each hit rate, since it is estimated from a sample.
        num_blocks: blocks looked up since the cache was opened or reset.
        sample_rate: share of blocks that is followed.
    """

    capacities_blocks: tuple[int, ...]
    hit_rates: tuple[float, ...]
    errors: tuple[float, ...]
    num_blocks: int
    sample_rate: float


TIER_FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Capacities that `read_tier_shares` tells of, as multiples of what a tier holds; at most SPAN."""


def make_ghost(settings: ControlSettings) -> GhostIndex | None:
    """The ghost index, or None if the settings ask for none."""
    if settings.ghost_sample_rate == 0:
        return None
    total = max(1, sum(settings.capacities.values()))
    resolution = total // _RESOLUTION
    sample_rate = min(settings.ghost_sample_rate, _NUM_SAMPLES_MAX / (SPAN * total))
    num_samples = int(2 * sample_rate * SPAN * total)
    return GhostIndex(
        sample_rate=sample_rate,
        num_samples_max=min(max(num_samples, _NUM_SAMPLES_MIN), _NUM_SAMPLES_MAX),
        hot_share=max(_HOT_SHARE, 1 / resolution) if resolution else _HOT_SHARE,
        span_blocks=SPAN * total,
        window_blocks=max(_WINDOW_MIN, 2 * total),
        resolution_blocks=resolution,
    )


def read_curve(
    ghost: GhostIndex | None, settings: ControlSettings, capacities_blocks: Iterable[int] | None
) -> HitCurve:
    """Read the ghost index out.

    Raises:
        ValueError: there is no ghost index, or a capacity is negative or more than SPAN times that of all tiers.
    """
    if ghost is None:
        raise ValueError("ghost_sample_rate is 0, so no hit-rate curve is kept; set it to 0.01, say")
    total = sum(settings.capacities.values())
    if capacities_blocks is None:
        capacities_blocks = [int(total * factor) for factor in _DEFAULT_FACTORS]
    capacities = tuple(int(capacity) for capacity in capacities_blocks)
    if any(capacity < 0 for capacity in capacities):
        raise ValueError(f"capacities_blocks = {list(capacities)}: must not be negative")
    rates, errors = ghost.curve(np.array(capacities, np.uint64))
    stats = ghost.stats()
    return HitCurve(
        capacities_blocks=capacities,
        hit_rates=tuple(rates.tolist()),
        errors=tuple(errors.tolist()),
        num_blocks=stats.num_blocks,
        sample_rate=stats.sample_rate,
    )


def read_tier_shares(ghost: GhostIndex, settings: ControlSettings) -> dict[TierName, tuple[float, ...]]:
    """The share of the blocks looked up that each tier would have served at `TIER_FACTORS` times its capacity, all other tiers
    as they are.

    A tier serves what lies beyond the reach of those before it. Under `on_evict` its reach begins where theirs ends, which is
    the most it can be, since what is read back stays where it was as well; otherwise it holds what they hold, too.
    """
    stops: list[int] = []
    reach = 0
    for tier in sorted(settings.capacities):
        capacity = settings.capacities[tier]
        reaches = [_reach(settings, reach, int(capacity * factor)) for factor in TIER_FACTORS]
        stops += [reach, *reaches]
        reach = _reach(settings, reach, capacity)
    rates = ghost.curve(np.array(stops, np.uint64))[0].tolist()
    step = 1 + len(TIER_FACTORS)
    return {
        tier: tuple(rate - rates[first] for rate in rates[first + 1 : first + step])
        for tier, first in zip(sorted(settings.capacities), range(0, len(rates), step), strict=True)
    }


def _reach(settings: ControlSettings, faster: int, capacity: int) -> int:
    """Blocks that a tier and the faster ones, which reach to `faster`, hold together."""
    return faster + capacity if settings.demotes else max(faster, capacity)
