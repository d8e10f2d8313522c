"""Page-aligned buffers between a file and memory that a file cannot be read into directly.

A call borrows a lane: two halves, so that one is filled while the other is emptied. The lanes are few and bounded, and
a call that finds none waits for one: every lane comes back when its call ends.
"""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context

from tiercel.tiers.memory import ContiguousMemory, MemoryRegion, allocate_memory, page_aligned_bytes

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
        per_half = total_bytes // (2 * num_lanes) // page_aligned_bytes(block_bytes)
        self.half_blocks = max(1, per_half)
        self._lanes: queue.SimpleQueue[tuple[ContiguousMemory, ContiguousMemory]] = queue.SimpleQueue()
        self.regions: list[MemoryRegion] = []
        """The buffers, for devices that copy from and to them."""
        stride = page_aligned_bytes(block_bytes)
        for _ in range(num_lanes):
            both = allocate_memory(2 * self.half_blocks, block_bytes)
            self.regions.append(MemoryRegion(int(both.addresses[0]), 2 * self.half_blocks * stride, stride))
            self._lanes.put((both.slice(0, self.half_blocks), both.slice(self.half_blocks, 2 * self.half_blocks)))
        self._pool = ThreadPoolExecutor(num_lanes, "tiercel-bounce")

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
        with self._lane() as halves:
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
                if ahead is not None:
                    ahead.exception()  # waits; what it raised was raised above or gives way to what was

    def close(self) -> None:
        """End the pool's threads. No call may be running."""
        self._pool.shutdown()

    @contextmanager
    def _lane(self) -> Iterator[tuple[ContiguousMemory, ContiguousMemory]]:
        lane = self._lanes.get()
        try:
            yield lane
        finally:
            self._lanes.put(lane)
