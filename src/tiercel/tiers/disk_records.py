"""What the disk tier knows of each written block, in memory and in the journal: name, parent and checksum.

The journal may lag behind: that a slot became void is written with the next record, and before anything else is written to
that slot, so that freeing costs no I/O. A kill in between brings the block back at the next start, as good as it was. A block
whose record the disk has no room for is not reported as written.
"""

import errno
import logging
import threading
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.config.paths import utf8_path
from tiercel.tiers._bookkeeping import distinct, runs_of
from tiercel.tiers.base import BlockLabels, BlockStatus, Slots, Statuses
from tiercel.tiers.labels import NAME_BYTES

_log = logging.getLogger("tiercel.tiers.disk")


Checksums = NDArray[np.uint64]


class BlockRecords:
    """Names and checksums per slot (41 bytes a slot), and the journal that outlives the process. Thread-safe."""

    def __init__(self, folder: Path, num_slots: int) -> None:
        self.parents: NDArray[np.uint8] = np.zeros((num_slots, NAME_BYTES), dtype=np.uint8)
        self.keys: NDArray[np.uint8] = np.zeros((num_slots, NAME_BYTES), dtype=np.uint8)
        self.checksums: Checksums = np.zeros(num_slots, dtype=np.uint64)
        self._recorded = np.zeros(num_slots, dtype=np.bool_)
        self._num_recorded = 0
        self._voids_lock = threading.Lock()
        self._unrecorded_voids: list[Slots] = []
        self._refusals: set[tuple[str, int | None]] = set()
        self.refusals: Counter[str] = Counter()
        """What the journal could not do, by act."""
        self._folder = folder
        self._lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()
        self._journal = _native.Journal(utf8_path(folder), num_slots=num_slots)

    def recover(self) -> Slots:
        """Load what the journal says and return the written slots, least recently written first. Once, first."""
        found = self._journal.recover()
        slots = found.slots
        self.parents[slots] = found.parents
        self.keys[slots] = found.keys
        self.checksums[slots] = found.checksums
        self._recorded[slots] = True
        self._num_recorded = len(slots)
        if found.torn_bytes or found.corrupt_records or found.out_of_range:
            _log.warning(
                "journal in %s: %d torn bytes cut, %d damaged places stepped over, %d blocks beyond capacity dropped",
                self._folder,
                found.torn_bytes,
                found.corrupt_records,
                found.out_of_range,
                extra={
                    "event": "journal_damaged",
                    "torn_bytes": found.torn_bytes,
                    "corrupt_records": found.corrupt_records,
                    "out_of_range": found.out_of_range,
                },
            )
            self._replace_damaged(slots)
        return slots

    @property
    def journal_bytes(self) -> int:
        """Bytes that a recovery would replay beside the checkpoint."""
        return self._journal.appended_bytes

    @property
    def num_segments(self) -> int:
        return self._journal.num_segments

    def record(self, slots: Slots, labels: BlockLabels, checksums: Checksums, statuses: Statuses) -> None:
        """Record the blocks that are `OK`; those that the journal does not take get another status."""
        with self._lock:
            for start, stop in runs_of(statuses == BlockStatus.OK):
                run = slice(start, stop)
                parent = labels.names[start - 1].tobytes() if start else labels.parent
                try:
                    self._flush_voids()
                    self._journal.put(parent, labels.names[run], slots[run], checksums[run])
                except OSError as error:
                    self._log_refusal("put", error)
                    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                    statuses[run] = BlockStatus.NO_SPACE if full else BlockStatus.IO_ERROR
                    continue
                with self._voids_lock:
                    self._recorded[slots[run]] = True
                    self._num_recorded += stop - start
                self.keys[slots[run]] = labels.names[run]
                self.parents[slots[start]] = np.frombuffer(parent, dtype=np.uint8)
                self.parents[slots[start + 1 : stop]] = labels.names[start : stop - 1]
                self.checksums[slots[run]] = checksums[run]

    def forget(self, slots: Slots) -> None:
        """Note that slots became void; `flush_voids` records it. Never blocks on I/O."""
        if len(slots):
            with self._voids_lock:
                self._num_recorded -= int(np.count_nonzero(self._recorded[slots]))
                self._recorded[slots] = False
                self._unrecorded_voids.append(slots)

    def flush_voids(self) -> None:
        """Record what `forget` noted. What cannot be recorded now is kept for the next time."""
        with self._lock:
            try:
                self._flush_voids()
            except OSError as error:
                self._log_refusal("free", error)

    def checkpoint(self, order: Slots) -> None:
        """Write all recorded slots to a new checkpoint: those in `order` first. Raises OSError."""
        with self._checkpoint_lock:
            with self._lock:
                self._journal.begin_checkpoint()
                rest = self._recorded.copy()
                known = order[rest[order]]
                rest[known] = False
                columns = self._columns(np.concatenate((known, np.flatnonzero(rest).astype(np.uint32))))
            self._journal.write_checkpoint(*columns)

    def sync(self) -> None:
        """Make the journal durable; a refusal is logged, because it costs no more than warm blocks."""
        try:
            self._journal.sync()
        except OSError as error:
            self._log_refusal("sync", error)

    def close(self) -> None:
        """Write and sync what is outstanding and close the journal."""
        self.flush_voids()
        self.sync()
        self._journal.close()

    def _replace_damaged(self, slots: Slots) -> None:
        """Write down what was recovered, so that what was dropped or damaged does not come up at the next start."""
        try:
            self.checkpoint(slots)
        except OSError as error:
            self._log_refusal("checkpoint", error)

    def _flush_voids(self) -> None:
        """Record outstanding voids. Raises OSError; they stay outstanding then."""
        with self._voids_lock:
            voids, self._unrecorded_voids = self._unrecorded_voids, []
        if not voids:
            return
        try:
            self._journal.free(distinct(np.concatenate(voids)))
        except OSError:
            with self._voids_lock:
                self._unrecorded_voids[:0] = voids
            raise

    def _columns(self, slots: Slots) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Slots, NDArray[np.uint64]]:
        return self.parents[slots], self.keys[slots], slots, self.checksums[slots]

    def _log_refusal(self, act: str, error: OSError) -> None:
        """Count a refusal, and log the first of each kind; more of them would only fill the same disk."""
        self.refusals[act] += 1
        if (act, error.errno) in self._refusals:
            return
        self._refusals.add((act, error.errno))
        _log.warning(
            "journal in %s: cannot %s: %s",
            self._folder,
            act,
            error,
            extra={"event": "journal_refused", "act": act, "errno": error.errno},
        )


def seeds_of(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return what ties each block's checksum to its name: the name's first 8 bytes."""
    return np.ascontiguousarray(keys).view(np.uint64)[:, 0].copy()
