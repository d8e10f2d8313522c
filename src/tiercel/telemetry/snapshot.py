"""The one message that says how a cache is doing: frozen, made of numbers and names, serialisable.

The facade builds a `StatusSnapshot`; `prometheus` turns it into metrics, `status` sends it to `tiercel stats`. Tiers,
queues and outcomes are named by strings, so that this module knows none of the layers above it.
"""

import msgspec


class HistogramStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of observations per bucket, not cumulative; the last bucket has no upper bound.

    Attributes:
        bounds: upper bounds of all buckets but the last, ascending; inclusive.
        counts: observations per bucket, one more than there are bounds.
        sum: sum of all observations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

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


class TierStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One tier: what it holds now, and what it did since it was opened.

    Bytes are payload bytes of blocks that ended ok; `journal_bytes` is what the journal has grown by since its checkpoint,
    `eviction_age` the seconds from the last use of a block to its eviction.
    """

    name: str
    num_slots: int
    num_free: int
    num_ready: int
    num_writing: int
    num_pinned: int
    block_bytes: int
    blocks_read: int = 0
    blocks_written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    read_seconds: float = 0.0
    write_seconds: float = 0.0
    blocks_corrupt: int = 0
    io_errors: int = 0
    evicted: int = 0
    eviction_age: HistogramStatus = HistogramStatus(bounds=(), counts=(0,), sum=0.0)
    journal_bytes: int = 0


class HitCurveStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The hit rate that an LRU cache would have had, by its capacity; see `Cache.hit_curve`.

    Attributes:
        factors: capacities as multiples of what all tiers hold together.
        hit_rates: of each capacity; `errors` are their standard errors.
        num_blocks: blocks counted so far.
        sample_rate: share of blocks that is followed.
    """

    factors: tuple[float, ...]
    hit_rates: tuple[float, ...]
    errors: tuple[float, ...]
    num_blocks: int
    sample_rate: float


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
    blocks: dict[str, int]
    num_bytes: int
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

    lookups: int
    lookup_tokens: int
    lookup_blocks: int
    hit_tokens: dict[str, int]
    hit_blocks: dict[str, int]
    pending_tokens: int
    pending_blocks: int
    declined_tokens: int
    declined_blocks: int
    lookup_seconds: HistogramStatus
    lookup_hit_ratio: HistogramStatus
    lookup_hit_blocks: dict[str, HistogramStatus]
    transfers: tuple[TransferStatus, ...]
    tickets: tuple[TicketStatus, ...]
    submission_depths: dict[str, HistogramStatus]
    checkpoint_seconds: HistogramStatus
    counters: dict[str, dict[str, int]]

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
        started_at: seconds since the epoch.
        tickets: tickets by state.
        queue_depths: moves waiting, by queue.
        hit_curve: None without a ghost index.
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
    tickets: dict[str, int] = {}
    queue_depths: dict[str, int] = {}
    hit_curve: HitCurveStatus | None = None
    notes: tuple[str, ...] = ()
