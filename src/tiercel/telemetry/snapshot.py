"""The one message that says how a cache is doing: frozen, made of numbers and names, serialisable.

The facade builds a `StatusSnapshot`; `prometheus` turns it into metrics, `status` sends it to `tiercel stats`. Tiers,
queues and outcomes are named by strings, so that this module knows none of the layers above it.
"""

from typing import Annotated

import msgspec

from tiercel.telemetry.catalogue import COUNTED

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of things; a message with another is refused where it is read."""


class HistogramStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of observations per bucket, not cumulative; the last bucket has no upper bound.

    Attributes:
        bounds: upper bounds of all buckets but the last, ascending; inclusive.
        counts: observations per bucket, one more than there are bounds.
        sum: sum of all observations.
    """

    bounds: tuple[float, ...]
    counts: tuple[Count, ...]
    sum: float

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1:
            raise ValueError(f"{len(self.counts)} buckets and {len(self.bounds)} bounds: there must be one bucket more")

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Mean of all observations; None without any."""
        return self.sum / self.count if self.count else None

    def quantile(self, fraction: float) -> float | None:
        """Return the upper bound of the bucket that holds the given quantile; None without observations.

        Observations above the last bound are reported as infinity.
        """
        rank = fraction * self.count
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen and seen >= rank:
                return bound
        return None


class TenantStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant has of one tier, in blocks; held are those stored or being written, evicted those since the start. `name` is
    as in the setting `tenants`, "" everybody who is not named there."""

    name: str
    held: Count
    reserve: Count
    limit: Count
    evicted: Count


class TierStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One tier: what it holds now, and what it did since it was opened.

    Bytes are payload bytes of blocks that ended ok; `journal_bytes` is what the journal has grown by since its checkpoint,
    `eviction_age` the seconds from a block's last use to its eviction, `recovered` the blocks there at the start.
    """

    name: str
    num_slots: Count
    num_free: Count
    num_ready: Count
    num_writing: Count
    num_pinned: Count
    block_bytes: Count
    blocks_read: Count = 0
    blocks_written: Count = 0
    bytes_read: Count = 0
    bytes_written: Count = 0
    read_seconds: float = 0.0
    write_seconds: float = 0.0
    blocks_corrupt: Count = 0
    io_errors: Count = 0
    evicted: Count = 0
    eviction_age: HistogramStatus = HistogramStatus(bounds=(), counts=(0,), sum=0.0)
    journal_bytes: Count = 0
    recovered: Count = 0
    tenants: tuple[TenantStatus, ...] = ()


class TierCurveStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier would serve at other capacities, all other tiers as they are.

    Attributes:
        tier: its name.
        factors: capacities as multiples of what the tier holds.
        shares: of the blocks looked up of late, those that the tier would have served, at each capacity.
    """

    tier: str
    factors: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.factors) != len(self.shares):
            raise ValueError(f"{len(self.factors)} capacities and {len(self.shares)} shares: must be as many")


class HitCurveStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The hit rate that an LRU cache would have had of late, by its capacity; see `Cache.hit_curve`.

    Attributes:
        factors: capacities as multiples of what all tiers hold together.
        hit_rates: of each capacity; `errors` are their standard errors.
        num_blocks: blocks counted so far.
        sample_rate: share of blocks that is followed.
        tiers: the same by tier, fastest first.
    """

    factors: tuple[float, ...]
    hit_rates: tuple[float, ...]
    errors: tuple[float, ...]
    num_blocks: Count
    sample_rate: float
    tiers: tuple[TierCurveStatus, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.factors) == len(self.hit_rates) == len(self.errors):
            raise ValueError(
                f"{len(self.factors)} capacities, {len(self.hit_rates)} hit rates and {len(self.errors)} errors: must be as many"
            )


class PrefillStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine's prefill takes, as learnt from its timings: fixed + linear in the tokens + linear in pairs of a token
    and one before it. `costs.PrefillCurve` has the formula."""

    fixed_s: float
    token_s: float
    token_pair_s: float
    num_observations: Count


class TuningChangeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Something that auto-tuning did.

    Attributes:
        at: seconds since the epoch.
        knob: what was changed; `before` and `after` are its values.
        action: tried, kept or undone.
        reason: why, with the numbers.
    """

    at: float
    knob: str
    action: str
    before: str
    after: str
    reason: str


class TuningStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `auto_tune` tunes.

    Attributes:
        values: as they stand, by knob.
        changes: the last ones, oldest first.
    """

    values: dict[str, str]
    changes: tuple[TuningChangeStatus, ...] = ()


class GpuPoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """GPU memory that copies take beside the blocks: lent to them and held of the device, now and at most."""

    device: str
    used_bytes: int
    used_bytes_high: int
    held_bytes: int
    held_bytes_high: int


class TransferStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved from one place to another.

    Attributes:
        blocks: blocks by outcome ("ok", "corrupt", ...).
        wait: seconds from the launch of a move's ticket to the move's start.
        seconds: seconds that a move spent with its tier.
        size: payload bytes of a move.
    """

    source: str
    target: str
    blocks: dict[str, Count]
    num_bytes: Count
    wait: HistogramStatus
    seconds: HistogramStatus
    size: HistogramStatus


class TicketStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Tickets of one kind that ended in one way: seconds from launch to outcome."""

    kind: str
    outcome: str
    seconds: HistogramStatus


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What happened since the cache was opened, as counted by `metrics.CacheMetrics`.

    Attributes:
        hit_tokens: tokens found ready, by the tier that would serve them; `hit_blocks` the same in blocks.
        pending_tokens: tokens found behind a hit that were still being written.
        declined_tokens: tokens found stored that are cheaper to recompute than to load.
        lookup_hit_ratio: share of a lookup's full blocks that are stored.
        lookup_hit_blocks: blocks per lookup that hit a tier, by tier.
        submission_depths: moves that a new operation found before it, by queue.
        counters: the counters of one label, by name and by the label's value; `catalogue.COUNTED` names them.
    """

    lookups: Count
    lookup_tokens: Count
    lookup_blocks: Count
    hit_tokens: dict[str, Count]
    hit_blocks: dict[str, Count]
    pending_tokens: Count
    pending_blocks: Count
    declined_tokens: Count
    declined_blocks: Count
    lookup_seconds: HistogramStatus
    lookup_hit_ratio: HistogramStatus
    lookup_hit_blocks: dict[str, HistogramStatus]
    transfers: tuple[TransferStatus, ...]
    tickets: tuple[TicketStatus, ...]
    submission_depths: dict[str, HistogramStatus]
    checkpoint_seconds: HistogramStatus
    counters: dict[str, dict[str, Count]]

    def __post_init__(self) -> None:
        lacking = sorted(set(COUNTED) - set(self.counters))
        if lacking:
            raise ValueError(f"counters: lacks {', '.join(lacking)}")

    @property
    def hit_rate(self) -> float | None:
        """Share of looked-up tokens that were stored and worth loading; None before the first lookup."""
        return sum(self.hit_tokens.values()) / self.lookup_tokens if self.lookup_tokens else None

    @property
    def throttled(self) -> dict[str, int]:
        """Refusals by the queue or tier that was full."""
        return self.counters["throttled"]

    @property
    def recompute(self) -> dict[str, int]:
        """Blocks or requests given back to the engine, by reason."""
        return self.counters["recompute"]


class StatusSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A running cache at one moment.

    Attributes:
        model: name of the model whose KV is cached.
        fingerprint: what must be equal for blocks to be exchangeable, in hexadecimal.
        started_at: seconds since the epoch. uptime_s: since then, even if the clock was set meanwhile.
        tickets: tickets by state.
        queue_depths: moves waiting, by queue.
        hit_curve: None without a ghost index. prefill: None before an engine has reported one. tuning: None without `auto_tune`.
        num_clients: of a node; None in process.
        gpu_pools: one for each GPU that an engine's memory lies on.
        notes: every silent fallback, in words.
    """

    pid: int
    version: str
    model: str
    fingerprint: str = ""
    started_at: float
    uptime_s: float
    tiers: tuple[TierStatus, ...]
    activity: Activity
    tickets: dict[str, Count] = {}
    queue_depths: dict[str, Count] = {}
    hit_curve: HitCurveStatus | None = None
    prefill: PrefillStatus | None = None
    tuning: TuningStatus | None = None
    gpu_pools: tuple[GpuPoolStatus, ...] = ()
    notes: tuple[str, ...] = ()
    num_clients: Count | None = None
