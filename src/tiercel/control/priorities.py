"""Priorities of a store's blocks: which of them are stored, and with what priority the index keeps them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

PRIORITY_MAX = 100

STEPS_MAX = 3
"""Most priorities that one store gives to the index; later blocks share the last one."""

Priority = int | NDArray[np.integer]
"""One priority for all blocks of a store, or one per block: int[num_blocks]; 0 to PRIORITY_MAX."""


def check_priority(priority: Priority, num_blocks: int) -> None:
    """Raise TypeError or ValueError unless `priority` fits a store of `num_blocks` blocks."""
    if isinstance(priority, np.ndarray):
        if priority.dtype.kind not in "iu" or priority.ndim != 1:
            raise TypeError(f"priority is {priority.dtype}[{priority.ndim} dimensions]; give one integer per block")
        if len(priority) != num_blocks:
            raise ValueError(f"priority has {len(priority)} entries for {num_blocks} blocks")
        if num_blocks and not 0 <= int(priority.min()) <= int(priority.max()) <= PRIORITY_MAX:
            raise ValueError(f"priority has entries outside 0 to {PRIORITY_MAX}")
    elif not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"priority = {priority!r}: must be an int or an array of them")
    elif not 0 <= priority <= PRIORITY_MAX:
        raise ValueError(f"priority = {priority}: must be 0 to {PRIORITY_MAX}")


def count_leading(priority: Priority, num_blocks: int, least: int) -> int:
    """How many leading blocks have at least that priority: the first one below it ends what is stored, as a tier holds
    no block without those before it."""
    if isinstance(priority, np.ndarray):
        below = np.flatnonzero(priority[:num_blocks] < least)
        return int(below[0]) if len(below) else num_blocks
    return num_blocks if priority >= least else 0


class Ladder:
    """Priorities along a store's path, in few steps that only go down: a block is worth what the best one behind it is."""

    __slots__ = ("_steps",)

    def __init__(self, priority: Priority, first_block: int, stop: int) -> None:
        """first_block, stop: the blocks of the sequence that `priority` starts with and ends before."""
        if not isinstance(priority, np.ndarray) or stop <= first_block:
            self._steps = [(stop, priority if isinstance(priority, int) else 0)]
            return
        worth = np.maximum.accumulate(priority[: stop - first_block][::-1])[::-1]
        ends = [*(np.flatnonzero(worth[1:] != worth[:-1]) + 1).tolist(), len(worth)]
        self._steps = [(first_block + end, int(worth[end - 1])) for end in ends[:STEPS_MAX]]
        self._steps[-1] = (stop, self._steps[-1][1])

    @property
    def num_steps(self) -> int:
        """Parts that a store is cut into."""
        return len(self._steps)

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """(end, priority) of each stretch of [start, stop), in order."""
        for end, priority in self._steps:
            if end > start:
                yield min(end, stop), priority
                if end >= stop:
                    return
