"""The disk tier: blocks in preallocated files that are warm again after any restart.

A block's life here: its slot is reserved (the journal forgets what the slot held), the block is written with a checksum
seeded by its name, and then recorded in the journal under its label. A crash at any point leaves a slot that is
recorded as what it holds, or not at all, or as something that its checksum disproves at the next read.

Directories, locks and manifests: `disk_directory`. Files and journal: `tiercel._native`. The facade restores its index
from `recovered` and calls `checkpoint` when `wants_checkpoint` says so.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from tiercel.errors import TierFailedError
from tiercel.tiers._bookkeeping import CallGate, Counters, SlotStates, runs_of
from tiercel.tiers.base import BlockLabels, BlockMemory, BlockStatus, Slots, Statuses, TierName, TierStats
from tiercel.tiers.block_files import fallbacks_of, open_block_files
from tiercel.tiers.bounce import BouncePool, Chunk
from tiercel.tiers.disk_directory import StripeFolders
from tiercel.tiers.disk_health import Service, statuses_of
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.disk_records import BlockRecords, Checksums, seeds_of
from tiercel.tiers.disk_sync import DiskSync
from tiercel.tiers.labels import RecoveredBlocks, check_labels
from tiercel.tiers.memory import ContiguousMemory, MemoryRegion, SharedMemory, page_aligned_bytes, region_of

_log = logging.getLogger("tiercel.tiers.disk")


class DiskTier:
    """Blocks in files. Made by `open`."""

    def __init__(self, options: DiskOptions, folders: StripeFolders, clock: Callable[[], float]) -> None:
        """Open files and journal in folders that are locked. Use `open`."""
        self._options = options
        self._folders = folders
        self._clock = clock
        self._gate = CallGate("disk")
        self._counters = Counters(options.num_slots, options.block_bytes)
        self._states = SlotStates(options.num_slots)
        self._records = BlockRecords(folders.folders[0], options.num_slots)
        self._files = open_block_files(folders.data_paths(), options)
        self._bounce = BouncePool(block_bytes=options.block_bytes, total_bytes=options.bounce_bytes)
        self.use_memory(region_of(self._bounce.shared_memory))
        self._reads = Service(
            "reads", failures_max=options.failures_max, probe_interval_s=options.probe_interval_s, clock=clock
        )
        self._writes = Service(
            "writes",
            failures_max=options.failures_max,
            probe_interval_s=options.probe_interval_s,
            clock=clock,
            probe=folders.fault,
        )
        self._sync = DiskSync(self._files, self._records, interval_s=options.sync_interval_s, clock=clock)
        self._recovered_slots = self._records.recover()
        self._states.mark_written(self._recovered_slots)

    @classmethod
    def open(cls, options: DiskOptions, *, clock: Callable[[], float] = time.monotonic) -> Self:
        """Open or create a disk tier and recover what it holds.

        A larger capacity than before keeps every block; a smaller one drops those in slots that no longer exist.

        Args:
            options: where and how large.
            clock: seconds, monotonic; for the age of what is not synced.

        Raises:
            ConfigError: a directory cannot be used or lacks space.
            DirectoryLockedError: another process uses a directory.
            FormatError: a directory does not belong to this set, this block size or this version. Nothing was changed.
            OSError: the device failed while files were opened.
        """
        folders = StripeFolders.open(
            options.directories,
            fingerprint=options.fingerprint,
            model_id=options.model_id,
            block_bytes=options.block_bytes,
            slot_bytes=page_aligned_bytes(options.block_bytes),
        )
        try:
            folders.check_space(options.num_slots)
            if folders.manifest.num_slots == 0:
                folders.save(0)  # the set exists from here on, also if this process dies while allocating
            tier = cls(options, folders, clock)
            folders.save(options.num_slots)
        except BaseException:
            folders.close()
            raise
        tier._log_opened()
        return tier

    @property
    def name(self) -> TierName:
        return TierName.DISK

    @property
    def num_slots(self) -> int:
        return self._options.num_slots

    @property
    def block_bytes(self) -> int:
        return self._options.block_bytes

    @property
    def engine(self) -> str:
        """ "io_uring" or "threads"."""
        return self._files.engine

    @property
    def direct(self) -> bool:
        """Whether the page cache is bypassed."""
        return self._files.direct

    @property
    def shared_memory(self) -> SharedMemory:
        """Its buffers, for other processes to map."""
        return self._bounce.shared_memory

    def use_memory(self, region: MemoryRegion) -> None:
        """Take memory that blocks are read into and written from in place: it is registered with io_uring as it is used, which
        saves pinning its pages for every transfer. It must stay mapped until it is forgotten or the tier is closed."""
        self._files.use_memory(region.address, region.num_bytes, region.unit_bytes)

    def forget_memory(self, region: MemoryRegion) -> None:
        """Let go of memory before it is unmapped. Waits for transfers under way."""
        self._files.forget_memory(region.address)

    @property
    def folder(self) -> Path:
        """Where manifest, lock and journal lie."""
        return self._folders.folders[0]

    @property
    def fallbacks(self) -> dict[str, str]:
        """What is slower than it could be, by kind, and why, in words. That of `io_buffers` may come after opening."""
        asked = {} if self._options.direct else {"direct_io": "ssd_direct_io is false: the page cache is in use"}
        return fallbacks_of(self._files) | asked

    @property
    def journal_bytes(self) -> int:
        """What the journal has grown by since its last checkpoint."""
        return self._records.journal_bytes

    @property
    def recovered(self) -> RecoveredBlocks:
        """What was found when the tier was opened, less what was freed or reserved since."""
        slots = self._recovered_slots[self._states.are_written(self._recovered_slots)]
        return RecoveredBlocks(parents=self._records.parents[slots], keys=self._records.keys[slots], slots=slots)

    def reserve(self, slots: Slots) -> None:
        with self._gate.call():
            self._records.forget(self._states.reserve(slots))

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        with self._gate.call():
            self._admit_write(slots)
            self._states.check_reserved(slots)
            check_labels(slots, labels, num_blocks=source.num_blocks)
            started = self._clock()
            statuses = np.full(len(slots), BlockStatus.IO_ERROR, dtype=np.uint8)
            checksums = np.zeros(len(slots), dtype=np.uint64)
            self._records.flush_voids()
            try:
                self._write_blocks(slots, source, labels, statuses, checksums)
                self._records.record(slots, labels, checksums, statuses)
            finally:
                self._states.finish_write(slots, statuses)
            self._writes.finish(statuses)
            self._counters.count_write(statuses, self._clock() - started)
            self._sync.sync_if_due()
            return statuses

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        with self._gate.call():
            self._reads.admit()
            if len(slots) != target.num_blocks:
                raise ValueError(f"{len(slots)} slots and {target.num_blocks} blocks")
            started = self._clock()
            statuses = np.full(len(slots), BlockStatus.MISSING, dtype=np.uint8)
            for start, stop in runs_of(self._states.are_written(slots)):
                self._read_blocks(slots[start:stop], target.slice(start, stop), statuses[start:stop])
            self._reads.finish(statuses)
            self._counters.count_read(statuses, self._clock() - started)
            return statuses

    def free(self, slots: Slots) -> None:
        """Make slots void. Recorded with the next write or checkpoint: freeing costs no I/O."""
        with self._gate.call():
            self._records.forget(self._states.void(slots))

    @property
    def wants_checkpoint(self) -> bool:
        """Whether the journal has grown so far that recovery would take long."""
        return self._records.journal_bytes >= self._options.checkpoint_bytes or self._records.num_segments > 16

    def checkpoint(self, order: Slots) -> None:
        """Replace the journal by one compact file, durably. Blocks; other calls go on meanwhile. What was void before the call
        stays void, whatever happens to the machine.

        Args:
            order: slots, least recently used first, as the index exports them. Slots that are not written now are left
                out; written ones that it lacks come last.

        Raises:
            OSError: the new file could not be written; the journal stays as it was.
        """
        with self._gate.call():
            self._states.check_range(order)
            self._records.checkpoint(order)

    def stats(self) -> TierStats:
        reasons = (self._writes.reason, self._reads.reason)
        return replace(
            self._counters.snapshot(),
            out_of_service="; ".join(filter(None, reasons)),
            num_outages=self._writes.num_outages + self._reads.num_outages,
            journal_refusals=dict(self._records.refusals),
        )

    def close(self) -> None:
        if not self._gate.close():
            return
        try:
            self._sync.sync_blocks()
            self._records.close()
        finally:
            self._files.close()  # first: it may have the buffers registered
            self._bounce.close()
            self._folders.close()

    def _admit_write(self, slots: Slots) -> None:
        try:
            self._writes.admit()
        except TierFailedError:
            self._records.forget(self._states.void(slots))
            raise

    def _write_blocks(
        self, slots: Slots, source: BlockMemory, labels: BlockLabels, statuses: Statuses, checksums: Checksums
    ) -> None:
        seeds = seeds_of(labels.names)

        def write(chunk: Chunk, memory: ContiguousMemory) -> None:
            part = slice(*chunk)
            errors, checksums[part] = self._files.write(
                slots[part], memory.addresses[: part.stop - part.start], seeds[part]
            )
            statuses[part] = statuses_of(slots[part], errors, "write")

        addresses = source.addresses
        if addresses is not None:
            write((0, len(slots)), ContiguousMemory(addresses, self.block_bytes))
            return

        def gather(chunk: Chunk, half: ContiguousMemory) -> None:
            source.slice(*chunk).gather(half.addresses[: chunk[1] - chunk[0]])

        self._bounce.store(len(slots), gather, write)

    def _read_blocks(self, slots: Slots, target: BlockMemory, statuses: Statuses) -> None:
        seeds, checksums = seeds_of(self._records.keys[slots]), self._records.checksums[slots]

        def read(chunk: Chunk, memory: ContiguousMemory) -> None:
            part = slice(*chunk)
            errors = self._files.read(
                slots[part], memory.addresses[: part.stop - part.start], seeds[part], checksums[part]
            )
            statuses[part] = statuses_of(slots[part], errors, "read")

        addresses = target.addresses
        if addresses is not None:
            read((0, len(slots)), ContiguousMemory(addresses, self.block_bytes))
            return

        def scatter(chunk: Chunk, half: ContiguousMemory) -> None:
            target.slice(*chunk).scatter(half.addresses[: chunk[1] - chunk[0]])

        self._bounce.load(len(slots), read, scatter)

    def _log_opened(self) -> None:
        _log.info(
            "disk tier open with %d of %d slots written",
            self._states.num_written,
            self.num_slots,
            extra={"event": "disk_tier_open", "engine": self.engine, "direct": self.direct},
        )
