"""What the control half needs to know of the configuration."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tiercel.plan import LoadPolicy
from tiercel.tiers.base import TierName

DEMOTION_START = 0.95
"""High watermark of the host tier under `on_evict` where the setting leaves less room: without room ahead of need a store
would evict what has not been written to disk yet."""


class Admission(enum.Enum):
    """Which blocks are written to disk."""

    THROUGH = "through"
    """Every block that is stored, at once."""
    ON_SECOND_HIT = "on_second_hit"
    """Blocks that a second sequence met, in a lookup or a store."""
    ON_EVICT = "on_evict"
    """Blocks that are about to leave the host tier."""


class Watermarks(msgspec.Struct, frozen=True):
    """Slots in use above which a tier is relieved, and down to which."""

    high: int
    low: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """Settings of one cache in blocks and bytes; `config.CacheConfig` says what each one means.

    Attributes:
        capacities: slots per tier; at least one tier.
        demotion_bytes_max: bytes on their way from the host tier to disk at once, for want of room.
    """

    capacities: Mapping[TierName, int]
    tokens_per_block: int
    block_bytes: int
    load_policy: LoadPolicy = LoadPolicy.AUTO
    eviction_policy: str = "lru"
    ssd_eviction_policy: str | None = None
    evict_ratio: float = 0.0
    evict_start_threshold: float = 1.0
    evict_stop_threshold: float | None = None
    slru_protected_threshold: int = 2
    hit_reward_seconds: float = 0.0
    ssd_admission: Admission = Admission.THROUGH
    ssd_write_budget_per_day: int | None = None
    min_store_priority: int = 0
    demotion_bytes_max: int = 128 << 20
    ghost_sample_rate: float = 0.0

    @property
    def demotes(self) -> bool:
        """Whether blocks reach the disk tier by leaving the host tier."""
        both = TierName.HOST in self.capacities and TierName.DISK in self.capacities
        return both and self.ssd_admission is Admission.ON_EVICT

    def watermarks(self, tier: TierName) -> Watermarks:
        """The watermarks of one tier, in slots."""
        start, stop = self.evict_start_threshold, self.evict_stop_threshold
        if tier is TierName.HOST and self.demotes:
            start = min(start, DEMOTION_START)
        low = max(0.0, start - self.evict_ratio) if stop is None else min(stop, start)
        capacity = self.capacities[tier]
        return Watermarks(int(capacity * start), int(capacity * low))
