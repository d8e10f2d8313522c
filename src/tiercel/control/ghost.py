"""The hit rate of capacities that the cache does not have: the ghost index, made from the settings and read out.

`Control` shows it every lookup and store; `Cache.hit_curve` gives its answer out.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tiercel.control.settings import ControlSettings
from tiercel.index import GhostIndex

SPAN = 4
"""Capacities up to this many times that of all tiers together are told."""

_DEFAULT_FACTORS = (0.015625, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1, 2, SPAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class HitCurve:
    """The hit rate that an LRU cache would have had since the cache was opened or reset, by its capacity.

    Attributes:
        capacities_blocks: distinct blocks that it would hold, over all its tiers together.
        hit_rates: share of the blocks looked up that it would have had, of each capacity.
        errors: one standard error of each hit rate, since it is estimated from a sample.
        num_blocks: blocks looked up so far.
        sample_rate: share of blocks that is followed.
    """

    capacities_blocks: tuple[int, ...]
    hit_rates: tuple[float, ...]
    errors: tuple[float, ...]
    num_blocks: int
    sample_rate: float


def make_ghost(settings: ControlSettings) -> GhostIndex | None:
    """The ghost index, or None if the settings ask for none."""
    if settings.ghost_sample_rate == 0:
        return None
    span = SPAN * max(1, sum(settings.capacities.values()))
    return GhostIndex(sample_rate=settings.ghost_sample_rate, span_blocks=span)


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
