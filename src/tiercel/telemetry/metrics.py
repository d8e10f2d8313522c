"""Counting what a cache does, in plain integers under one lock: a call costs well under two microseconds.

The facade's reporter calls `CacheMetrics`; `activity()` freezes the counts for the snapshot that `prometheus` and `status`
serve. What can be read off at any moment (tiers, queues, tickets) is not counted here: the reporter puts it into the
snapshot.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from threading import Lock

from tiercel.telemetry.snapshot import Activity, HistogramStatus, TransferStatus

LOOKUP_BOUNDS_S = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2, 0.1, 1.0)
"""Upper bounds of the lookup histogram: from a short prompt's hit to something badly wrong."""

TRANSFER_BOUNDS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the transfer histograms: from a few blocks of host memory to a long prompt from a slow disk."""


class Histogram:
    """Counts per bucket. Not thread-safe: the owner's lock guards it."""

    __slots__ = ("_bounds_s", "_counts", "_sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation in the first bucket whose bound is not below it."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def freeze(self) -> HistogramStatus:
        """Return the counts so far."""
        return HistogramStatus(bounds_s=self._bounds_s, counts=tuple(self._counts), sum_s=self._sum_s)


class _Route:
    """Counts of one (source, target) pair."""

    __slots__ = ("blocks", "num_bytes", "seconds")

    def __init__(self) -> None:
        self.blocks: dict[str, int] = {}
        self.num_bytes = 0
        self.seconds = Histogram(TRANSFER_BOUNDS_S)


class CacheMetrics:
    """The counts of one cache. Thread-safe; never raises, never blocks on I/O."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lookups = 0
        self._lookup_tokens = 0
        self._pending_tokens = 0
        self._hit_tokens: dict[str, int] = {}
        self._lookup_seconds = Histogram(LOOKUP_BOUNDS_S)
        self._routes: dict[tuple[str, str], _Route] = {}
        self._throttled: dict[str, int] = {}
        self._recompute: dict[str, int] = {}

    def observe_lookup(
        self, *, seconds: float, num_tokens: int, hits: Iterable[tuple[str, int]], num_pending_tokens: int = 0
    ) -> None:
        """Count one lookup.

        Args:
            seconds: what the call took.
            num_tokens: tokens asked for.
            hits: (tier name, tokens that it would serve), a tier may appear more than once.
            num_pending_tokens: tokens behind the hit that are being written.
        """
        with self._lock:
            self._lookups += 1
            self._lookup_tokens += num_tokens
            self._pending_tokens += num_pending_tokens
            for tier, tokens in hits:
                self._hit_tokens[tier] = self._hit_tokens.get(tier, 0) + tokens
            self._lookup_seconds.observe(seconds)

    def observe_completion(
        self, *, source: str, target: str, seconds: float, num_bytes: int, blocks: Mapping[str, int]
    ) -> None:
        """Count one move that ended.

        Args:
            source: name of the tier or memory read, `target` the one written.
            seconds: from the start of the move to its end.
            num_bytes: payload bytes of the blocks that ended ok.
            blocks: number of blocks by outcome.
        """
        with self._lock:
            route = self._routes.get((source, target))
            if route is None:
                route = self._routes[(source, target)] = _Route()
            for status, count in blocks.items():
                route.blocks[status] = route.blocks.get(status, 0) + count
            route.num_bytes += num_bytes
            route.seconds.observe(seconds)

    def throttled(self, queue: str) -> None:
        """Count a refusal: the named queue or tier was full."""
        with self._lock:
            self._throttled[queue] = self._throttled.get(queue, 0) + 1

    def recompute(self, reason: str, count: int = 1) -> None:
        """Count what was given back to the engine to compute, and why."""
        with self._lock:
            self._recompute[reason] = self._recompute.get(reason, 0) + count

    def activity(self) -> Activity:
        """Freeze the counts so far."""
        with self._lock:
            transfers = tuple(
                TransferStatus(
                    source=source,
                    target=target,
                    blocks=dict(route.blocks),
                    num_bytes=route.num_bytes,
                    seconds=route.seconds.freeze(),
                )
                for (source, target), route in sorted(self._routes.items())
            )
            return Activity(
                lookups=self._lookups,
                lookup_tokens=self._lookup_tokens,
                hit_tokens=dict(self._hit_tokens),
                pending_tokens=self._pending_tokens,
                lookup_seconds=self._lookup_seconds.freeze(),
                transfers=transfers,
                throttled=dict(self._throttled),
                recompute=dict(self._recompute),
            )
