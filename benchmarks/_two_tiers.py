"""Replay a trace through a host and a disk tier, and count what each way of admission writes to disk and reads back.

The rules are the cache's own: a request's leading blocks that any tier holds are hits, each of its fastest tier; what
came from disk and what was computed is kept in host memory; blocks reach the disk

- `through`: all at once when they are stored;
- `on_second_hit`: when a second request has them, up to the first that none had before;
- `on_evict`: with their whole path, when host memory is about to lose them.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
from _traces import sequences_of

from tiercel.hashing import Sequence
from tiercel.index import Index, Match
from tiercel.tune.traces import Trace

HOST, DISK = 0, 1
ADMISSIONS = ("through", "on_second_hit", "on_evict")


@dataclass(frozen=True, kw_only=True)
class TwoTierResult:
    """Blocks. A write counts as read back once, however often it is read before it leaves the disk."""

    num_references: int
    num_host_hits: int
    num_disk_hits: int
    num_written: int
    num_read_back: int

    @property
    def written_per_read_back(self) -> float:
        return self.num_written / self.num_read_back if self.num_read_back else float("inf")


class TwoTiers:
    """Host and disk tier under one way of admission."""

    def __init__(self, index: Index, capacities: Items[int], admission: str) -> None:
        self._index = index
        self._admission = admission
        self._owners = np.zeros(
            (capacities[HOST], 2), np.int64
        )  # of each host slot: number of the request, block in it
        self._is_read = np.ones(capacities[DISK], bool)  # of each disk slot: whether its block was read since its write
        self._seen: set[int] = set()
        self.num_written = self.num_read_back = 0
        self.num_hits = [0, 0]

    def replay(self, trace: Trace) -> TwoTierResult:
        sequences = sequences_of(trace)
        for number, (sequence, request) in enumerate(zip(sequences, trace.paths(), strict=True)):
            match = self._index.match(sequence)
            self._count_hits(match)
            match.release()
            self._keep_in_host(sequences, number)
            path = request.tolist()
            if self._admission == "through":
                self._write(sequence, len(path))
            elif self._admission == "on_second_hit":
                self._write(sequence, next((at for at, block in enumerate(path) if block not in self._seen), len(path)))
                self._seen.update(path)
        return TwoTierResult(
            num_references=trace.num_references,
            num_host_hits=self.num_hits[HOST],
            num_disk_hits=self.num_hits[DISK],
            num_written=self.num_written,
            num_read_back=self.num_read_back,
        )

    def _count_hits(self, match: Match) -> None:
        for tier, first, count in match.segments:
            self.num_hits[tier] += count
            if tier == DISK:
                slots = match.slots(first, first + count)
                self.num_read_back += int(np.count_nonzero(~self._is_read[slots]))
                self._is_read[slots] = True

    def _keep_in_host(self, sequences: list[Sequence], number: int) -> None:
        reservation = self._index.reserve(sequences[number], HOST, owner=1)
        if self._admission == "on_evict":
            lost: dict[int, int] = {}  # request -> its deepest block lost
            for request, block in self._owners[reservation.voided].tolist():
                lost[request] = max(block, lost.get(request, 0))
            for request, block in lost.items():
                self._write(sequences[request], block + 1)
        slots = reservation.slots
        self._owners[slots, 0] = number
        self._owners[slots, 1] = reservation.first_block + np.arange(len(slots))
        self._index.commit(reservation)

    def _write(self, sequence: Sequence, num_blocks: int) -> None:
        if num_blocks == 0:
            return
        reservation = self._index.reserve(sequence, DISK, owner=1, limit_blocks=num_blocks)
        self._is_read[reservation.slots] = False
        self.num_written += reservation.num_blocks
        self._index.commit(reservation)
