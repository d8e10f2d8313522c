"""What of a store may go to disk: the sketch of what was seen before, and the write budget. Used by `control` only."""

from tiercel.control.settings import Admission, ControlSettings
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import FrequencySketch
from tiercel.tiers.base import TierName

_SECOND = 2
_WINDOW_MIN, _WINDOW_MAX = 1024, 1 << 24
"""Sightings in a window of the sketch: as many as the tiers have slots, within these bounds."""

_DAY_S = 86400.0
_BURST_S = 3600.0

BUDGET = "budget"
"""Name under which a write that the budget forbade is counted as throttled."""


class WriteBudget:
    """A token bucket of bytes: a day's allowance comes evenly over the day, and at most an hour's is saved up.

    In any span of t seconds no more than `bytes_per_day * (3600 + t) / 86400` bytes are spent. Time comes in as an argument.
    """

    def __init__(self, bytes_per_day: int) -> None:
        self._rate = bytes_per_day / _DAY_S
        self._burst = self._rate * _BURST_S
        self._level = self._burst
        self._at_s: float | None = None

    def available(self, now_s: float) -> int:
        """Bytes that may be written now. A time before one that was told brings nothing: callers look at the clock before they
        wait for their turn, and what lies between must not be counted twice."""
        if self._at_s is None or now_s > self._at_s:
            elapsed_s = 0.0 if self._at_s is None else now_s - self._at_s
            self._at_s = now_s
            self._level = min(self._burst, self._level + elapsed_s * self._rate)
        return int(self._level)

    def spend(self, num_bytes: int) -> None:
        """Take bytes out of what is available."""
        self._level -= num_bytes


class DiskAdmission:
    """Decides how many leading blocks of a sequence the disk tier takes."""

    def __init__(self, settings: ControlSettings) -> None:
        self._block_bytes = settings.block_bytes
        window = min(max(sum(settings.capacities.values()), _WINDOW_MIN), _WINDOW_MAX)
        admission = settings.ssd_admission
        self._counts = admission is Admission.ON_SECOND_HIT
        # What may be switched to counting counts from the start: a sketch that begins empty would admit nothing for a while.
        tuned = settings.auto_tune and admission is Admission.THROUGH and TierName.DISK in settings.capacities
        sees = self._counts or tuned
        self._sketch = FrequencySketch(window) if sees else None
        budget = settings.ssd_write_budget_per_day
        self._budget = None if budget is None else WriteBudget(budget)

    @property
    def counts(self) -> bool:
        """Whether blocks are admitted by how often they were seen."""
        return self._counts

    @property
    def sees(self) -> bool:
        """Whether it counts how often blocks were seen, now used or not. Does not change."""
        return self._sketch is not None

    def switch(self, admission: Admission) -> None:
        """Admit by this from now on: `THROUGH` or `ON_SECOND_HIT`, under settings that let it be tuned."""
        assert self._sketch is not None, "nothing was counted that could be admitted by"
        assert admission is not Admission.ON_EVICT, "demotion is another structure"
        self._counts = admission is Admission.ON_SECOND_HIT

    @property
    def limited(self) -> bool:
        """Whether there is a budget, so that it matters what the disk holds already."""
        return self._budget is not None

    def see(self, sequence: TokenSequence, stop: int) -> None:
        """Count the blocks before `stop`, each once in the sequence's life."""
        if self._sketch is not None:
            self._sketch.see(sequence, stop)

    def num_admitted(self, sequence: TokenSequence, stop: int) -> int:
        """How many of the leading blocks before `stop` were seen often enough."""
        if self._sketch is None or not self._counts:
            return stop
        return self._sketch.count_leading(sequence, stop, _SECOND)

    def num_affordable(self, now_s: float) -> int | None:
        """How many blocks may be written now; None for any number."""
        return None if self._budget is None else max(0, self._budget.available(now_s)) // self._block_bytes

    def spend(self, num_blocks: int) -> None:
        """Charge blocks whose writing was planned, whatever becomes of it."""
        if self._budget is not None:
            self._budget.spend(num_blocks * self._block_bytes)
