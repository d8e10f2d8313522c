"""What tuning watches: counts since the cache was opened, and what they say of the time between two looks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import inf, sqrt


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What happened since the cache was opened.

    Attributes:
        looked_up: blocks looked up; `hits` are those that any tier was to serve, `disk_hits` the disk tier's share of them.
        disk_written, disk_read, disk_evicted: blocks.
        host_evicted: blocks; `host_evicted_age_s` is the sum of the seconds since their last use.
        stores: those that needed room in the host tier.
        cramped: of these, those that had to evict by themselves or found no slot.
        refused: stores that a full queue or the write budget kept from the disk.
        resets: how often every block was forgotten.
    """

    lookups: int = 0
    looked_up: int = 0
    hits: int = 0
    disk_hits: int = 0
    disk_written: int = 0
    disk_read: int = 0
    disk_evicted: int = 0
    host_evicted: int = 0
    host_evicted_age_s: float = 0.0
    stores: int = 0
    cramped: int = 0
    refused: int = 0
    resets: int = 0

    def since(self, earlier: "Counts") -> "Window":
        """What was added to an earlier count."""
        grown = {field.name: getattr(self, field.name) - getattr(earlier, field.name) for field in fields(self)}
        return Window(**grown)


class Window(Counts):
    """What happened between two looks, and the measures of it."""

    __slots__ = ()

    @property
    def hit_share(self) -> float:
        """Of the blocks looked up, those that a tier was to serve."""
        return _ratio(self.hits, self.looked_up)

    @property
    def disk_hit_share(self) -> float:
        """Of the blocks looked up, those that the disk tier was to serve."""
        return _ratio(self.disk_hits, self.looked_up)

    @property
    def written_share(self) -> float:
        """Blocks written to disk for each one looked up."""
        return _ratio(self.disk_written, self.looked_up)

    @property
    def written_per_read(self) -> float:
        """Blocks written to disk for each one read back; infinite where none was."""
        return self.disk_written / self.disk_read if self.disk_read else inf if self.disk_written else 0.0

    @property
    def cramped_share(self) -> float:
        """Of the stores that needed room in the host tier, those that found none ahead of need."""
        return _ratio(self.cramped, self.stores)

    @property
    def eviction_age_s(self) -> float:
        """Mean time since the last use of what the host tier evicted; infinite if it evicted nothing."""
        return self.host_evicted_age_s / self.host_evicted if self.host_evicted else inf


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


Measure = Callable[[Window], float]

_NOISE_ERRORS = 4.0
"""Standard errors of a difference between two means that count as noise: with four windows on each side (six degrees of
freedom) chance alone exceeds that in one comparison of 280."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure's mean over some windows before a change and after it, and the difference that noise may make."""

    before: float
    after: float
    noise: float

    @property
    def fall(self) -> float:
        """By how much it fell."""
        return self.before - self.after


def compare(before: Sequence[Window], after: Sequence[Window], measure: Measure) -> Difference:
    """Hold a measure after a change against the same measure before it; at least two windows of each."""
    ours, theirs = [measure(window) for window in before], [measure(window) for window in after]
    noise = _NOISE_ERRORS * sqrt(_variance(ours) / len(ours) + _variance(theirs) / len(theirs))
    return Difference(_mean(ours), _mean(theirs), noise)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
