"""Loads whose layers are waited for one by one, so that an engine computes the first while the last are on their way.

A block's layers lie one behind another in a slot. They are loaded in *groups* of neighbouring layers, large enough to be
worth a copy each: group 0 of all blocks first. What comes from a slower tier comes whole, block by block, behind it. A layer
has arrived when every block of the load has it. Made by `devices`, filled by `engine`, asked by tickets.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tiercel.errors import DeadlineError
from tiercel.tiers.base import BlockMemory
from tiercel.transfer.deadlines import longest_wait

GROUP_BYTES = 32 << 20
"""Least bytes of a group over all blocks of a load: less takes longer to start than to copy."""


class StreamTransfer(Protocol):
    """A copy under way on a device."""

    def hold(self, stream: int) -> None:
        """Make what is queued on a stream from now on wait for the copy."""
        ...


def layers_per_group(num_layers: int, num_bytes: int) -> int:
    """Return how many layers a group has: a power of two, so that few different groups ever exist.

    Args:
        num_layers: layers of a block.
        num_bytes: bytes of the whole load.
    """
    least = -(-GROUP_BYTES * num_layers // max(1, num_bytes))
    return min(num_layers, 1 << (least - 1).bit_length())


class LayerArrivals:
    """How far one load has come, group by group. Thread-safe."""

    def __init__(self, num_layers: int, group_layers: int, num_blocks: int) -> None:
        """Nothing has arrived.

        Args:
            num_layers: layers of a block.
            group_layers: layers of a group; the last one may have fewer.
            num_blocks: blocks of the load.
        """
        self.num_groups = -(-num_layers // group_layers)
        self._num_layers = num_layers
        self._group_layers = group_layers
        self._num_blocks = num_blocks
        # Entered as it is: a condition is entered by Python code, in which a signal's exception would leave the lock held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._num_arrived = [0] * self.num_groups
        self._num_queued = [0] * self.num_groups
        self._transfers: list[list[StreamTransfer]] = [[] for _ in range(self.num_groups)]
        self._ended = False

    def layers_of(self, group: int) -> tuple[int, int]:
        """Return a group's layers as [start, stop)."""
        start = group * self._group_layers
        return start, min(self._num_layers, start + self._group_layers)

    def starter(self, group: int) -> Callable[[int, StreamTransfer], None]:
        """Return what is to be told of each copy of a group that was started on a device, with its blocks."""

        def started(num_blocks: int, transfer: StreamTransfer) -> None:
            with self._lock:
                self._num_queued[group] += num_blocks
                self._transfers[group].append(transfer)
                self._changed.notify_all()

        return started

    def arrived(self, group: int, num_blocks: int) -> None:
        """Enter blocks that have arrived of a group."""
        with self._lock:
            self._num_arrived[group] += num_blocks
            self._changed.notify_all()

    def arrived_whole(self, num_blocks: int) -> None:
        """Enter blocks that have arrived with all their layers."""
        with self._lock:
            for group in range(self.num_groups):
                self._num_arrived[group] += num_blocks
                self._num_queued[group] += num_blocks
            self._changed.notify_all()

    def end(self) -> None:
        """Say that nothing more arrives."""
        with self._lock:
            self._ended = True
            for transfers in self._transfers:
                transfers.clear()
            self._changed.notify_all()

    def wait(self, layer: int, stream: int | None, timeout_s: float | None) -> bool:
        """Wait for a layer; `Ticket.wait_layer` describes it."""
        if not 0 <= layer < self._num_layers:
            raise ValueError(f"layer = {layer}: must lie in [0, {self._num_layers})")
        group, wanted = layer // self._group_layers, self._num_blocks
        with self._lock:
            counts = self._num_arrived if stream is None else self._num_queued

            def known() -> bool:
                return self._ended or counts[group] >= wanted or self._num_arrived[group] >= wanted

            if not self._changed.wait_for(known, longest_wait(timeout_s)):
                raise DeadlineError(f"layer {layer} has not arrived after {timeout_s} s")
            if self._num_arrived[group] >= wanted:
                return True
            if self._ended:
                return False
            transfers = list(self._transfers[group])
        assert stream is not None, "without a stream only what has arrived is known"
        for transfer in transfers:
            transfer.hold(stream)
        return True


@dataclass(frozen=True, eq=False)
class LayeredTarget:
    """An engine's blocks, group by group.

    Attributes:
        groups: the blocks' layers of each group.
        share_bytes: bytes of a block that each group has.
        arrivals: told how far they have come.
    """

    groups: tuple[BlockMemory, ...]
    share_bytes: tuple[int, ...]
    arrivals: LayerArrivals
