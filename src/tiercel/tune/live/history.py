"""The last minute of one cache: what it did between two snapshots. Pure; time is what the snapshots say."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tiercel.telemetry.snapshot import HistogramStatus, StatusSnapshot, TierStatus

WINDOW_S = 60.0
"""Shares and ages are told of so long a time."""

_SNAPSHOTS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Span:
    """Two snapshots of one process, `seconds` apart; the first may be the only one, then nothing is known of rates."""

    before: StatusSnapshot
    after: StatusSnapshot

    @property
    def seconds(self) -> float:
        """Time between the two, by the cache's own clock."""
        return self.after.uptime_s - self.before.uptime_s

    def rate(self, before: float, after: float) -> float | None:
        """What a counter grew by in a second; None if the clock stood still."""
        return (after - before) / self.seconds if self.seconds > 0 else None

    def grown(self, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
        """Counters that grew, and by how much."""
        grown = {name: count - before.get(name, 0) for name, count in after.items()}
        return {name: count for name, count in grown.items() if count > 0}

    def tier_before(self, tier: TierStatus) -> TierStatus:
        """The same tier in the first snapshot."""
        return next((other for other in self.before.tiers if other.name == tier.name), tier)

    def hit_shares(self) -> dict[str, float]:
        """Share of the blocks looked up that each tier served; nothing without a lookup."""
        looked_up = self.after.activity.lookup_blocks - self.before.activity.lookup_blocks
        if looked_up <= 0:
            return {}
        hits = self.grown(self.before.activity.hit_blocks, self.after.activity.hit_blocks)
        return {tier.name: hits.get(tier.name, 0) / looked_up for tier in self.after.tiers}

    def eviction_age_s(self, tier: TierStatus) -> float | None:
        """Bound below which half of the blocks evicted had been unused; None if none was."""
        before, after = self.tier_before(tier).eviction_age, tier.eviction_age
        if before.bounds != after.bounds:
            return None
        counts = tuple(max(0, now - then) for now, then in zip(after.counts, before.counts, strict=True))
        return HistogramStatus(bounds=after.bounds, counts=counts, sum=0.0).quantile(0.5)


class History:
    """Snapshots of one process, oldest first, for as long as the window; another process's begin anew."""

    def __init__(self) -> None:
        self._snapshots: deque[StatusSnapshot] = deque(maxlen=_SNAPSHOTS_MAX)

    def add(self, snapshot: StatusSnapshot) -> None:
        """Take in what was read last."""
        if self._snapshots:
            last = self._snapshots[-1]
            same = (last.pid, last.started_at) == (snapshot.pid, snapshot.started_at)
            if not same or snapshot.uptime_s < last.uptime_s:
                self._snapshots.clear()
        self._snapshots.append(snapshot)
        while snapshot.uptime_s - self._snapshots[0].uptime_s > WINDOW_S:
            self._snapshots.popleft()

    @property
    def latest(self) -> StatusSnapshot | None:
        """What was read last."""
        return self._snapshots[-1] if self._snapshots else None

    @property
    def now(self) -> Span:
        """Between the last two. Needs: something was read."""
        return Span(self._snapshots[-2 if len(self._snapshots) > 1 else -1], self._snapshots[-1])

    @property
    def minute(self) -> Span:
        """From the oldest one kept to the last. Needs: something was read."""
        return Span(self._snapshots[0], self._snapshots[-1])
