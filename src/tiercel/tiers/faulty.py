"""A wrapper that makes a tier fail on purpose: the faults of a real device, drawn from a seed.

Faults are inputs of tests. The tier inside stays consistent: a block whose write fails here is void there.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from tiercel.errors import TierFailedError
from tiercel.tiers._bookkeeping import runs_of
from tiercel.tiers.base import BlockLabels, BlockMemory, BlockStatus, Slots, Statuses, Tier
from tiercel.tiers.memory import allocate_memory, bytes_view
from tiercel.tiers.wrapper import TierWrapper


@dataclass(frozen=True, kw_only=True)
class TierFaults:
    """Which faults happen, and how often. Rates are probabilities for each block (delays: for each call).

    Attributes:
        seed: of the generator that draws the faults; the same calls in the same order meet the same faults.
        read_error_rate: a read ends as `IO_ERROR`.
        corrupt_rate: a read ends as `CORRUPT`, with garbage in the target.
        missing_rate: a read ends as `MISSING`.
        write_error_rate: a write ends as `IO_ERROR`.
        no_space_rate: a write ends as `NO_SPACE`.
        delay_rate: a read or a write takes `delay_s` longer.
        delay_s: length of a delay in seconds.
        fail_after_calls: the tier goes out of service after so many calls of reserve, read and write; None for never.
    """

    seed: int = 0
    read_error_rate: float = 0.0
    corrupt_rate: float = 0.0
    missing_rate: float = 0.0
    write_error_rate: float = 0.0
    no_space_rate: float = 0.0
    delay_rate: float = 0.0
    delay_s: float = 0.0
    fail_after_calls: int | None = None


@dataclass(frozen=True, kw_only=True)
class FaultCounts:
    """What a `FaultyTier` did so far."""

    blocks: dict[BlockStatus, int] = field(default_factory=dict)
    delays: int = 0
    calls: int = 0


class FaultyTier(TierWrapper):
    """A tier whose reads and writes fail as `faults` says."""

    def __init__(self, inner: Tier, faults: TierFaults, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(inner)
        self._faults = faults
        self._sleep = sleep
        self._random = np.random.default_rng(faults.seed)
        self._lock = threading.Lock()
        self._counts = FaultCounts()

    @property
    def counts(self) -> FaultCounts:
        """Faults injected so far."""
        return self._counts

    def reserve(self, slots: Slots) -> None:
        self._enter()
        self._inner.reserve(slots)

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        faults = self._faults
        try:
            self._enter()
        except TierFailedError:
            self._inner.free(slots)
            raise
        rates = {BlockStatus.IO_ERROR: faults.write_error_rate, BlockStatus.NO_SPACE: faults.no_space_rate}
        statuses = self._draw(len(slots), rates)
        for start, stop in runs_of(statuses == BlockStatus.OK):
            is_named = len(labels.names) > 0  # a tier that forgets at its end is given no names
            parent = labels.names[start - 1].tobytes() if start and is_named else labels.parent
            part = BlockLabels(parent=parent, names=labels.names[start:stop])
            statuses[start:stop] = self._inner.write(slots[start:stop], source.slice(start, stop), part)
        self._inner.free(slots[statuses != BlockStatus.OK])
        return statuses

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        faults = self._faults
        self._enter()
        statuses = self._inner.read(slots, target)
        rates = {
            BlockStatus.IO_ERROR: faults.read_error_rate,
            BlockStatus.CORRUPT: faults.corrupt_rate,
            BlockStatus.MISSING: faults.missing_rate,
        }
        drawn = self._draw(len(slots), rates)
        for block in np.flatnonzero(drawn == BlockStatus.CORRUPT):
            self._spoil(target.slice(int(block), int(block) + 1))
        return np.where(statuses == BlockStatus.OK, drawn, statuses).astype(np.uint8)

    def _enter(self) -> None:
        faults = self._faults
        with self._lock:
            self._counts = replace(self._counts, calls=self._counts.calls + 1)
            failed = faults.fail_after_calls is not None and self._counts.calls > faults.fail_after_calls
            delayed = not failed and faults.delay_rate > 0 and self._random.random() < faults.delay_rate
            if delayed:
                self._counts = replace(self._counts, delays=self._counts.delays + 1)
        if failed:
            raise TierFailedError(f"the {self.name.name.lower()} tier failed (injected)")
        if delayed:
            self._sleep(faults.delay_s)

    def _draw(self, num_blocks: int, rates: dict[BlockStatus, float]) -> Statuses:
        """Draw each block's fate; `OK` is no fault."""
        with self._lock:
            lots = self._random.random(num_blocks)
            statuses = np.full(num_blocks, BlockStatus.OK, dtype=np.uint8)
            blocks = dict(self._counts.blocks)
            floor = 0.0
            for status, rate in rates.items():
                chosen = (lots >= floor) & (lots < floor + rate)
                statuses[chosen] = status
                blocks[status] = blocks.get(status, 0) + int(np.count_nonzero(chosen))
                floor += rate
            self._counts = replace(self._counts, blocks=blocks)
        return statuses

    def _spoil(self, block: BlockMemory) -> None:
        garbage = allocate_memory(1, self.block_bytes)
        bytes_view(garbage, 0, self.block_bytes)[:] = self._random.bytes(self.block_bytes)
        block.scatter(garbage.addresses)
