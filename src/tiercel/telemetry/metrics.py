"""Counting what a cache does, in plain integers under a lock: a call costs about a microsecond.

Lookups are counted apart from that, by a native tally. A thread that is interrupted while it holds a lock makes all others
queue up for it, and from then on each of them gives its turn away at every call: eight callers looked up half as much as
one. The tally is one call that keeps the interpreter's turn while it holds its lock, so nobody finds that taken.

The facade's reporter calls `CacheMetrics`; `activity()` freezes the counts for the snapshot that `prometheus` and `status`
serve. What can be read off at any moment (tiers, queues, running tickets) is not counted here: the reporter puts it into the
snapshot.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock

from tiercel._native import LookupTally, TallyHistogram
from tiercel.telemetry.catalogue import COUNTED
from tiercel.telemetry.snapshot import Activity, HistogramStatus, TicketStatus, TransferStatus

LOOKUP_BOUNDS_S = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2, 0.1, 1.0)
"""Upper bounds of the lookup histogram: from a short prompt's hit to something badly wrong."""

TRANSFER_BOUNDS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the transfer and ticket histograms: from a few blocks of host memory to a long prompt from a slow disk."""

CHECKPOINT_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
HIT_BLOCKS_BOUNDS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0)
HIT_RATIO_BOUNDS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
QUEUE_BOUNDS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
MOVE_BOUNDS_BYTES = tuple(float(64 << (10 + 2 * step)) for step in range(9))
"""64 KiB to 4 GiB."""


FORESEEN = {
    "checkpoints": ("ok", "failed"),
    "errors": ("DeadlineError", "StaleTicketError", "ThrottledError", "TierFailedError"),
    "recorder_events": ("written", "dropped"),
    "tuning_changes": ("tried", "kept", "undone"),
}
"""Labels that are served from the start: Prometheus's `increase` does not see a counter that appears with its first event."""


class Histogram:
    """Counts per bucket. Not thread-safe: the owner's lock guards it."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation in the first bucket whose bound is not below it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def freeze(self) -> HistogramStatus:
        """Return the counts so far."""
        return HistogramStatus(bounds=self._bounds, counts=tuple(self.counts), sum=self.total)


def _frozen(histogram: TallyHistogram, bounds: tuple[float, ...]) -> HistogramStatus:
    return HistogramStatus(bounds=bounds, counts=histogram.counts, sum=histogram.total)


class _Route:
    """Counts of one (source, target) pair."""

    __slots__ = ("blocks", "num_bytes", "seconds", "size", "wait")

    def __init__(self) -> None:
        self.blocks: dict[str, int] = {}
        self.num_bytes = 0
        self.wait = Histogram(TRANSFER_BOUNDS_S)
        self.seconds = Histogram(TRANSFER_BOUNDS_S)
        self.size = Histogram(MOVE_BOUNDS_BYTES)

    def freeze(self, source: str, target: str) -> TransferStatus:
        return TransferStatus(
            source=source,
            target=target,
            blocks=dict(self.blocks),
            num_bytes=self.num_bytes,
            wait=self.wait.freeze(),
            seconds=self.seconds.freeze(),
            size=self.size.freeze(),
        )


class CacheMetrics:
    """The counts of one cache. Thread-safe; never raises for what it counts, never blocks on I/O."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lookups = LookupTally(
            seconds_bounds=LOOKUP_BOUNDS_S, hit_ratio_bounds=HIT_RATIO_BOUNDS, hit_blocks_bounds=HIT_BLOCKS_BOUNDS
        )
        self._routes: dict[tuple[str, str], _Route] = {}
        self._tickets: dict[tuple[str, str], Histogram] = {}
        self._submissions: dict[str, Histogram] = {}
        self._checkpoint_seconds = Histogram(CHECKPOINT_BOUNDS_S)
        self._counters: dict[str, dict[str, int]] = {name: {} for name in sorted(COUNTED - {"lookups"})}
        for name, labels in FORESEEN.items():
            self.foresee(name, labels)

    def observe_lookup(
        self,
        *,
        seconds: float,
        num_tokens: int,
        tokens_per_block: int,
        hits: Sequence[tuple[str, int]],
        num_pending: int = 0,
        num_declined: int = 0,
    ) -> None:
        """Count one lookup.

        Args:
            seconds: what the call took.
            num_tokens: tokens asked for.
            tokens_per_block: tokens of a full block, the same in every call.
            hits: (tier name, blocks that it would serve), a tier at most once.
            num_pending: blocks behind the hit that are being written.
            num_declined: blocks behind the hit that are stored but cheaper to recompute.
        """
        self._lookups.observe(seconds, num_tokens, tokens_per_block, hits, num_pending, num_declined)

    def observe_move(
        self, *, route: tuple[str, str], wait_s: float, seconds: float, num_bytes: int, blocks: Mapping[str, int]
    ) -> None:
        """Count one move that ended.

        Args:
            route: names of the tier or memory read and of the one written.
            wait_s: from the launch of its ticket to its start.
            seconds: with the tier.
            num_bytes: payload bytes of the blocks that ended ok.
            blocks: number of blocks by outcome.
        """
        with self._lock:
            counts = self._routes.get(route)
            if counts is None:
                counts = self._routes[route] = _Route()
            for status, count in blocks.items():
                counts.blocks[status] = counts.blocks.get(status, 0) + count
            counts.num_bytes += num_bytes
            counts.wait.observe(wait_s)
            counts.seconds.observe(seconds)
            counts.size.observe(num_bytes)

    def observe_ticket(self, *, kind: str, outcome: str, seconds: float) -> None:
        """Count a ticket that resolved, `seconds` after its launch."""
        with self._lock:
            histogram = self._tickets.get((kind, outcome))
            if histogram is None:
                histogram = self._tickets[(kind, outcome)] = Histogram(TRANSFER_BOUNDS_S)
            histogram.observe(seconds)

    def observe_submission(self, depths: Mapping[str, int]) -> None:
        """Count the moves that a new operation finds before it in each queue."""
        with self._lock:
            for queue, depth in depths.items():
                histogram = self._submissions.get(queue)
                if histogram is None:
                    histogram = self._submissions[queue] = Histogram(QUEUE_BOUNDS)
                histogram.observe(depth)

    def observe_checkpoint(self, seconds: float) -> None:
        """Count a checkpoint that was written."""
        with self._lock:
            self._checkpoint_seconds.observe(seconds)
        self.count("checkpoints", "ok")

    def foresee(self, counter: str, labels: Iterable[str]) -> None:
        """Serve 0 for these values of a counter's label before the first of them is counted."""
        with self._lock:
            for label in labels:
                self._counters[counter].setdefault(label, 0)

    def count(self, counter: str, label: str, num: int = 1) -> None:
        """Add to one of the counters of `catalogue.COUNTED`, under the value of its label."""
        with self._lock:
            values = self._counters[counter]
            values[label] = values.get(label, 0) + num

    def activity(self) -> Activity:
        """Freeze the counts so far."""
        lookups = self._lookups.read()
        per_block = lookups.tokens_per_block
        hits = {tier: _frozen(histogram, HIT_BLOCKS_BOUNDS) for tier, histogram in lookups.hits.items()}
        outcomes = {"miss": lookups.num_missed, "partial": lookups.num_partial, "full": lookups.num_full}
        with self._lock:
            return Activity(
                lookups=sum(outcomes.values()),
                lookup_tokens=lookups.num_tokens,
                lookup_blocks=lookups.num_blocks,
                hit_tokens={tier: int(histogram.sum) * per_block for tier, histogram in hits.items()},
                hit_blocks={tier: int(histogram.sum) for tier, histogram in hits.items()},
                pending_tokens=lookups.num_pending * per_block,
                pending_blocks=lookups.num_pending,
                declined_tokens=lookups.num_declined * per_block,
                declined_blocks=lookups.num_declined,
                lookup_seconds=_frozen(lookups.seconds, LOOKUP_BOUNDS_S),
                lookup_hit_ratio=_frozen(lookups.hit_ratio, HIT_RATIO_BOUNDS),
                lookup_hit_blocks=hits,
                transfers=tuple(route.freeze(*names) for names, route in sorted(self._routes.items())),
                tickets=tuple(
                    TicketStatus(kind=kind, outcome=outcome, seconds=histogram.freeze())
                    for (kind, outcome), histogram in sorted(self._tickets.items())
                ),
                submission_depths={queue: h.freeze() for queue, h in self._submissions.items()},
                checkpoint_seconds=self._checkpoint_seconds.freeze(),
                counters={"lookups": outcomes, **{name: dict(values) for name, values in self._counters.items()}},
            )
