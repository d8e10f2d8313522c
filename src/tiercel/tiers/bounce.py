"""Page-aligned buffers between a file and memory that a file cannot be read into directly.

A call borrows a lane: two halves, so that one is filled while the other is emptied. The lanes are few and bounded, and
a call that finds none waits for one: every lane comes back when its call ends, or, if somebody may still write to it then, when
that has settled. The lanes are shared memory, because an engine's blocks may lie in other processes, and one of these that was
stopped may leave a store's lane unsettled for as long as it likes. So one lane is for loads alone, whose lanes always come back,
and stores fail while all the others are held like that.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

import numpy as np

from tiercel import _native
from tiercel.errors import DeviceError
from tiercel.tiers.base import UnsettledError
from tiercel.tiers.memory import ContiguousMemory, SharedArena, SharedMemory, page_aligned_bytes

Chunk = tuple[int, int]
"""[start, stop) of a call's blocks."""

_Lane = tuple[ContiguousMemory, ContiguousMemory]


class BouncePool:
    """A bounded number of lanes, each of two halves of equal size. Thread-safe."""

    def __init__(self, *, block_bytes: int, total_bytes: int, num_lanes: int = 8) -> None:
        """Allocate nothing yet; a lane's pages become resident when it is first used.

        Args:
            block_bytes: size of a block.
            total_bytes: size of all lanes together; each half holds at least one block whatever this says.
            num_lanes: calls that can use the pool at once, all but one of them stores; 2 at least.
        """
        stride = page_aligned_bytes(block_bytes)
        self.half_blocks = max(1, total_bytes // (2 * num_lanes) // stride)
        self._stride = stride
        self._arena = _native.Arena(2 * num_lanes * self.half_blocks * stride, hugepages=False)
        addresses = np.arange(2 * num_lanes * self.half_blocks, dtype=np.uint64) * np.uint64(stride)
        blocks = ContiguousMemory(addresses + np.uint64(self._arena.address), block_bytes, owner=self._arena)
        # Entered as it is: a condition is entered by Python code, in which a signal's exception would leave the lock held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._free: list[_Lane] = []
        self._num_store_lanes = num_lanes - 1
        self._num_storing = 0
        self._num_unsettled = 0
        for at in range(0, 2 * num_lanes * self.half_blocks, 2 * self.half_blocks):
            both = blocks.slice(at, at + 2 * self.half_blocks)
            self._free.append((both.slice(0, self.half_blocks), both.slice(self.half_blocks, 2 * self.half_blocks)))
        self._pool = ThreadPoolExecutor(num_lanes, "tiercel-bounce")

    @property
    def shared_memory(self) -> SharedMemory:
        """All lanes, for other processes to map and for devices to copy from and to."""
        return SharedArena(self._arena, resident=False, unit_bytes=self._stride)

    def store(
        self,
        num_blocks: int,
        gather: Callable[[Chunk, ContiguousMemory], None],
        write: Callable[[Chunk, ContiguousMemory], None],
    ) -> None:
        """Run `gather` and then `write` on each chunk, `write` of a chunk while `gather` of the next one runs.

        `gather` runs on a thread of the pool, `write` on the caller's. An exception of either ends the call, after the other has
        ended.

        Raises:
            DeviceError: all lanes that stores may have are held by processes that do not answer.
        """
        lane = self._take_for_store()
        unsettled: UnsettledError | None = None
        try:
            self._run(num_blocks, lane, gather, write)
        except UnsettledError as error:
            unsettled = error
            raise
        finally:
            if unsettled is None:
                self._give_back_store(lane)
            else:
                self._hold(lane, unsettled)

    def load(
        self,
        num_blocks: int,
        read: Callable[[Chunk, ContiguousMemory], None],
        scatter: Callable[[Chunk, ContiguousMemory], None],
    ) -> None:
        """Run `read` and then `scatter` on each chunk, as `store` does; neither may leave anything unsettled."""
        with self._lock:
            self._changed.wait_for(lambda: self._free)
            lane = self._free.pop()
        try:
            self._run(num_blocks, lane, read, scatter)
        finally:
            with self._lock:
                self._free.append(lane)
                self._changed.notify_all()

    def _run(
        self,
        num_blocks: int,
        halves: _Lane,
        first: Callable[[Chunk, ContiguousMemory], None],
        second: Callable[[Chunk, ContiguousMemory], None],
    ) -> None:
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
            # Waits; what it raised was raised above, or gives way to what was unless somebody may still write.
            left = None if ahead is None else ahead.exception()
            if isinstance(left, UnsettledError):
                raise left

    def _take_for_store(self) -> _Lane:
        with self._lock:
            while not self._free or self._num_storing >= self._num_store_lanes:
                if self._num_unsettled >= self._num_store_lanes:
                    raise DeviceError(
                        f"{self._num_unsettled} processes that do not answer hold all buffers of the disk tier's stores"
                    )
                self._changed.wait()
            self._num_storing += 1
            return self._free.pop()

    def _give_back_store(self, lane: _Lane) -> None:
        with self._lock:
            self._num_storing -= 1
            self._free.append(lane)
            self._changed.notify_all()

    def _hold(self, lane: _Lane, unsettled: UnsettledError) -> None:
        """Keep a store's lane until nobody may write to it any more."""

        def settle(_: object) -> None:
            with self._lock:
                self._num_unsettled -= 1
            self._give_back_store(lane)

        with self._lock:
            self._num_unsettled += 1
            self._changed.notify_all()  # who waits for a lane may now wait in vain
        unsettled.settled.add_done_callback(settle)

    def close(self) -> None:
        """End the pool's threads and release the memory. No call may be running."""
        self._pool.shutdown()
        self._arena.close()
