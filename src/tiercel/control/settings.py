"""What the control half needs to know of the configuration."""

import enum
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What of the settings may change while the cache runs.

    Attributes:
        admission: never to or from `ON_EVICT`, which is another structure.
        host_room: share of the host tier that is kept free ahead of need, beside what the settings say.
    """

    admission: Admission
    host_room: float = 0.0


class Watermarks(msgspec.Struct, frozen=True):
    """Slots in use above which a tier is relieved, and down to which."""

    high: int
    low: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSlots:
    """Slots of each tier that a tenant has reserved, and that it holds at most."""

    reserves: Mapping[TierName, int]
    limits: Mapping[TierName, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """Settings of one cache in blocks and bytes; `config.CacheConfig` says what each one means.

    Attributes:
        capacities: slots per tier; at least one tier.
        tenants: those that share the tiers, from number 1 on; number 0 is everybody who was not named.
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
    auto_tune: bool = False
    tenants: Sequence[TenantSlots] = ()

    @property
    def demotes(self) -> bool:
        """Whether blocks reach the disk tier by leaving the host tier."""
        both = TierName.HOST in self.capacities and TierName.DISK in self.capacities
        return both and self.ssd_admission is Admission.ON_EVICT

    @property
    def untuned(self) -> Tuned:
        """What the settings say of what may change."""
        return Tuned(admission=self.ssd_admission)

    def high_watermark(self, tier: TierName, room: float = 0.0) -> float:
        """The high watermark of one tier, as a share of it; `room` as in `watermarks`."""
        start = self.evict_start_threshold
        if tier is TierName.HOST and self.demotes:
            start = min(start, DEMOTION_START)
        return max(start - room / 2, start / 2)

    def watermarks(self, tier: TierName, room: float = 0.0) -> Watermarks:
        """The watermarks of one tier, in slots.

        Args:
            room: share of the tier that is kept free beside what the settings say. The high watermark is lower by half of it, and
                the low one as far below that, or by `evict_ratio` if that is more.
        """
        start, stop = self.high_watermark(tier, room), self.evict_stop_threshold
        low = max(0.0, start - max(self.evict_ratio, room / 2))
        if stop is not None:
            low = min(stop, start) if room == 0 else min(stop, low)
        capacity = self.capacities[tier]
        # What is reserved does not leave, so a tier cannot be brought below that.
        num_reserved = sum(tenant.reserves[tier] for tenant in self.tenants)
        return Watermarks(max(int(capacity * start), num_reserved), max(int(capacity * low), num_reserved))
