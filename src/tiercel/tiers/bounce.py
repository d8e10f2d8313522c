"""Page-aligned buffers between a file and memory that a file cannot be read into directly.

A call borrows a lane: two halves, so that one is filled while the other is emptied. The lanes are few and bounded, and
a call that finds none waits for one: every lane comes back when its call ends, or, if somebody may still write to it then, when
that has settled. The lanes are shared memory, because an engine's blocks may lie in other processes.
"""

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

import numpy as np

from tiercel import _native
from tiercel.tiers.base import UnsettledError
from tiercel.tiers.memory import ContiguousMemory, SharedArena, SharedMemory, page_aligned_bytes

Chunk = tuple[int, int]
"""[start, stop) of a call's blocks."""


class BouncePool:
    """A bounded number of lanes, each of two halves of equal size. Thread-safe."""

    def __init__(self, *, block_bytes: int, total_bytes: int, num_lanes: int = 4) -> None:
        """Allocate nothing yet; a lane's pages become resident when it is first used.

        Args:
            block_bytes: size of a block.
            total_bytes: size of all lanes together; each half holds at least one block whatever this says.
            num_lanes: calls that can use the pool at once.
        """
        stride = page_aligned_bytes(block_bytes)
        self.half_blocks = max(1, total_bytes // (2 * num_lanes) // stride)
        self._stride = stride
        self._arena = _native.Arena(2 * num_lanes * self.half_blocks * stride, hugepages=False)
        addresses = np.arange(2 * num_lanes * self.half_blocks, dtype=np.uint64) * np.uint64(stride)
        blocks = ContiguousMemory(addresses + np.uint64(self._arena.address), block_bytes, owner=self._arena)
        self._lanes: queue.SimpleQueue[tuple[ContiguousMemory, ContiguousMemory]] = queue.SimpleQueue()
        for at in range(0, 2 * num_lanes * self.half_blocks, 2 * self.half_blocks):
            both = blocks.slice(at, at + 2 * self.half_blocks)
            self._lanes.put((both.slice(0, self.half_blocks), both.slice(self.half_blocks, 2 * self.half_blocks)))
        self._pool = ThreadPoolExecutor(num_lanes, "tiercel-bounce")

    @property
    def shared_memory(self) -> SharedMemory:
        """All lanes, for other processes to map and for devices to copy from and to."""
        return SharedArena(self._arena, resident=False, unit_bytes=self._stride)

    def pipeline(
        self,
        num_blocks: int,
        first: Callable[[Chunk, ContiguousMemory], None],
        second: Callable[[Chunk, ContiguousMemory], None],
    ) -> None:
        """Run `first` and then `second` on each chunk, `second` of a chunk while `first` of the next one runs.

        `first` runs on a thread of the pool, `second` on the caller's. An exception of either ends the call, after the
        other has ended.
        """
        halves = self._lanes.get()
        chunks = [(at, min(num_blocks, at + self.half_blocks)) for at in range(0, num_blocks, self.half_blocks)]
        ahead: Future[None] | None = None
        run = copy_context().run  # what `first` logs belongs to the caller's request
        try:
            for number, chunk in enumerate(chunks):
                half = halves[number % 2]
                if ahead is None:
                    ahead = self._pool.submit(run, first, chunk, half)
                ahead.result()
                following = number + 1
                if following < len(chunks):
                    ahead = self._pool.submit(run, first, chunks[following], halves[following % 2])
                second(chunk, half)
        finally:
            # Waits; what it raised was raised above or gives way to what was.
            left = None if ahead is None else ahead.exception()
            if isinstance(left, UnsettledError):
                left.settled.add_done_callback(lambda _: self._lanes.put(halves))
            else:
                self._lanes.put(halves)

    def close(self) -> None:
        """End the pool's threads and release the memory. No call may be running."""
        self._pool.shutdown()
        self._arena.close()
