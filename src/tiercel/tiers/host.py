"""The host tier: blocks in one arena, which ends with the process or outlives it (`arena_directory`).

Slots are memory, so another tier reads and writes them in place through `memory`: what it wrote to reserved slots
becomes readable here with `mark_written`, without a copy. Bytes carry no checksum here: they are as safe as the
engine's own.

In an arena that outlives the process a slot's record is void before anybody may write to the slot, and valid when its block is
whole: whenever the process is killed, what is recorded can be read.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tiercel import _native
from tiercel.tiers._bookkeeping import CallGate, Counters, SlotStates
from tiercel.tiers.arena_directory import KeptArena
from tiercel.tiers.arena_records import NoRecords, SlotRecords
from tiercel.tiers.base import Addresses, BlockLabels, BlockMemory, BlockStatus, Slots, Statuses, TierName, TierStats
from tiercel.tiers.labels import RecoveredBlocks, check_labels, nothing_recovered
from tiercel.tiers.memory import Arena, ContiguousMemory, SharedArena, SharedMemory, page_aligned_bytes

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_OK = int(BlockStatus.OK)
_PREFAULT_BYTES = 64 << 20
_SMALL_PAGE_THREADS = 4
"""Threads beyond these bring nothing where pages are small: they wait for the lock of the one file that they fill. On 16 cores
1, 2, 4, 8 and 16 threads took 4.7, 2.1, 1.4, 1.7 and 1.7 s for 8 GiB, and 5, 4, 6, 14 and 27 s of CPU."""


class HostTier:
    """Blocks in host memory. Each slot has whole pages to itself."""

    def __init__(
        self,
        *,
        num_slots: int,
        block_bytes: int,
        hugepages: bool = True,
        copy_threads: int = 1,
        shared: bool = False,
        kept: KeptArena | None = None,
    ) -> None:
        """Map the arena; its pages are not resident until `prefault` or first use.

        Args:
            num_slots: capacity in blocks.
            block_bytes: size of a block.
            hugepages: ask for huge pages, which most kernels give only to memory that is not shared.
            copy_threads: threads that one `read` or `write` may use.
            shared: other processes may map the arena.
            kept: an arena that outlives the process, of that capacity; the tier's from now on, and closed with it. By default
                one that ends with the process.

        Raises:
            OSError: the memory is not to be had.
        """
        self._block_bytes = block_bytes
        self._stride = page_aligned_bytes(block_bytes)
        self._copy_threads = copy_threads
        self._kept = kept
        self._arena: Arena = (
            _native.Arena(num_slots * self._stride, hugepages=hugepages, shared=shared) if kept is None else kept.arena
        )
        self._records: SlotRecords = NoRecords() if kept is None else kept.records
        self._states = SlotStates(num_slots)
        self._recovered = nothing_recovered() if kept is None else kept.recovered
        self._states.mark_written(self._recovered.slots)
        self._counters = Counters(num_slots, block_bytes)
        self._gate = CallGate("host")

    @property
    def name(self) -> TierName:
        return TierName.HOST

    @property
    def num_slots(self) -> int:
        return self._counters.snapshot().num_slots

    @property
    def block_bytes(self) -> int:
        return self._block_bytes

    @property
    def arena(self) -> Arena:
        """The memory itself, for CUDA to pin."""
        return self._arena

    @property
    def shared_memory(self) -> SharedMemory:
        """The memory itself, for devices to copy from and to and, if it is shared, for other processes to map."""
        return SharedArena(self._arena, resident=True, unit_bytes=self._stride)

    @property
    def recovered(self) -> RecoveredBlocks:
        """What was found when the tier was opened, less what was freed or reserved since."""
        found = self._recovered
        kept = self._states.are_written(found.slots)
        return RecoveredBlocks(parents=found.parents[kept], keys=found.keys[kept], slots=found.slots[kept])

    @property
    def outlives_process(self) -> bool:
        """Whether its blocks are there for the next process."""
        return self._kept is not None

    @property
    def cold_reason(self) -> str:
        """Why it holds nothing of what an earlier process left, or ""."""
        return "" if self._kept is None else self._kept.cold_reason

    @property
    def stride_bytes(self) -> int:
        """Bytes from a slot to the next."""
        return self._stride

    def prefault(self, num_threads: int, progress: Progress | None = None) -> None:
        """Make all pages resident, so that no store waits for the kernel to zero one.

        Args:
            num_threads: threads to touch pages with; where pages are small no more than 4 of them.
            progress: called from those threads, one at a time.
        """
        total = self._arena.num_bytes
        done = 0
        lock = threading.Lock()

        def touch(start: int) -> None:
            nonlocal done
            stop = min(total, start + _PREFAULT_BYTES)
            self._arena.prefault(start, stop)
            with lock:
                done += stop - start
                if progress is not None:
                    progress(done, total)

        useful = num_threads if self._arena.huge else min(num_threads, _SMALL_PAGE_THREADS)
        with self._gate.call(), ThreadPoolExecutor(useful, "tiercel-prefault") as pool:
            list(pool.map(touch, range(0, total, _PREFAULT_BYTES)))

    def memory(self, slots: Slots) -> ContiguousMemory:
        """The memory of slots, for another tier to copy from or to. Valid until `close`."""
        self._states.check_range(slots)
        return ContiguousMemory(
            self._addresses(slots), self._block_bytes, num_threads=self._copy_threads, owner=self._arena
        )

    def mark_written(self, slots: Slots, labels: BlockLabels, statuses: Statuses) -> None:
        """Make reserved slots readable whose blocks were written in place through `memory`: those that are `OK`. The others stay
        reserved.

        Raises:
            ValueError: a slot is not reserved, or the names are not as many. No slot changed.
        """
        with self._gate.call():
            self._states.check_reserved(slots)
            check_labels(slots, labels, num_blocks=len(statuses))
            self._records.record(slots, labels, statuses)
            self._states.mark_written(slots[statuses == BlockStatus.OK])

    def reserve(self, slots: Slots) -> None:
        with self._gate.call():
            self._states.reserve(slots)
            self._records.void(slots)

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        with self._gate.call():
            self._states.check_reserved(slots)
            check_labels(slots, labels, num_blocks=source.num_blocks)
            started = time.monotonic()
            source.gather(self._addresses(slots))
            statuses = np.full(len(slots), BlockStatus.OK, dtype=np.uint8)
            self._records.record(slots, labels, statuses)
            self._states.finish_write(slots, statuses)
            self._counters.count_write(statuses, time.monotonic() - started)
            return statuses

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        with self._gate.call():
            started = time.monotonic()
            # Void slots are copied as well: their block's memory is undefined, and one call copies everything.
            written = self._states.are_written(slots)
            target.scatter(self._addresses(slots))
            statuses = np.where(written, BlockStatus.OK, BlockStatus.MISSING).astype(np.uint8)
            self._counters.count_read(statuses, time.monotonic() - started)
            return statuses

    def count_read(self, num_blocks: int, seconds: float) -> None:
        """Count a read that another process made of slots in the shared memory."""
        self._counters.count_read(np.full(num_blocks, _OK, dtype=np.uint8), seconds)

    def free(self, slots: Slots) -> None:
        with self._gate.call():
            self._states.void(slots)
            self._records.void(slots)

    def keep_order(self, slots: Slots) -> None:
        """Note in which order blocks were used, the last one last, for the next process."""
        with self._gate.call():
            self._records.keep_order(slots)

    def stats(self) -> TierStats:
        return self._counters.snapshot()

    def close(self) -> None:
        if self._gate.close():
            (self._arena if self._kept is None else self._kept).close()

    def _addresses(self, slots: Slots) -> Addresses:
        return slots.astype(np.uint64) * np.uint64(self._stride) + np.uint64(self._arena.address)
