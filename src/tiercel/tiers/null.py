"""The null tier: states of slots without bytes, for the simulator and for tests of what surrounds a tier.

A read reports `OK` for a written slot and leaves the target's memory as it was. For modelled bandwidth and latency wrap
it in `ThrottledTier` with a virtual clock.
"""

import numpy as np

from tiercel.tiers._bookkeeping import CallGate, Counters, SlotStates
from tiercel.tiers.base import BlockLabels, BlockMemory, BlockStatus, Slots, Statuses, TierName, TierStats


class NullTier:
    """A tier that remembers which slots are written, and nothing else. Its calls take no time that it would count."""

    def __init__(self, *, name: TierName, num_slots: int, block_bytes: int) -> None:
        self._name = name
        self._states = SlotStates(num_slots)
        self._counters = Counters(num_slots, block_bytes)
        self._gate = CallGate(name.name.lower())

    @property
    def name(self) -> TierName:
        return self._name

    @property
    def num_slots(self) -> int:
        return self._counters.snapshot().num_slots

    @property
    def block_bytes(self) -> int:
        return self._counters.snapshot().block_bytes

    def reserve(self, slots: Slots) -> None:
        with self._gate.call():
            self._states.reserve(slots)

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        with self._gate.call():
            self._states.check_reserved(slots)
            statuses = np.full(len(slots), BlockStatus.OK, dtype=np.uint8)
            self._states.finish_write(slots, statuses)
            self._counters.count_write(statuses, 0.0)
            return statuses

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        with self._gate.call():
            written = self._states.are_written(slots)
            statuses = np.where(written, BlockStatus.OK, BlockStatus.MISSING).astype(np.uint8)
            self._counters.count_read(statuses, 0.0)
            return statuses

    def free(self, slots: Slots) -> None:
        with self._gate.call():
            self._states.void(slots)

    def stats(self) -> TierStats:
        return self._counters.snapshot()

    def close(self) -> None:
        self._gate.close()
