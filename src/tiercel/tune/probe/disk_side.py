"""A file in a cache directory, read and written block by block as the disk tier does it. Used by `disk`.

The first half of the file is read and the second half written, so that what is read stays what was written and every read is held
against its checksum. Blocks of one call never touch each other in the file: the engine would merge them, and a figure of 64 KiB
would be one of larger requests.
"""

import errno
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from tiercel.tiers.block_files import BlockFiles, checksum
from tiercel.tiers.memory import allocate_memory, bytes_view
from tiercel.tune.machine import PART_BYTES
from tiercel.tune.probe.nameless import NamelessFile

Operation = Literal["read", "write", "mixed"]
Slots = NDArray[np.uint32]

_FILL_BLOCK_BYTES = 1 << 20
_FILL_DEPTH = 32


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked of a directory: blocks of one size, so many of them in progress at once."""

    operation: Operation
    block_bytes: int
    depth: int


@dataclass(frozen=True, kw_only=True)
class DiskRun:
    """One run: its rate, and the seconds that each of its blocks took."""

    bytes_per_s: float
    seconds: NDArray[np.float64]


class DiskSide:
    """A nameless file of two halves, and memory as large as one, whose bytes both halves hold."""

    def __init__(self, directory: Path, *, num_bytes: int, engine: str = "auto", direct: bool = True) -> None:
        """Make the file, give it its space and write it whole.

        Args:
            directory: where.
            num_bytes: size of the file, a multiple of 16 MiB.
            engine: "auto", "io_uring" or "threads", as `BlockFiles` has it.
            direct: ask for O_DIRECT.

        Raises:
            OSError: the directory cannot be written, or is full.
        """
        self.directory = directory
        self.half_bytes = num_bytes // 2
        self.file = NamelessFile(directory)
        self._engine = engine
        self._direct = direct
        self._random = np.random.default_rng(0)
        self._checksums: dict[int, NDArray[np.uint64]] = {}
        self._opened: tuple[tuple[int, int], BlockFiles] | None = None
        try:
            self._memory = allocate_memory(1, self.half_bytes)
            _fill(bytes_view(self._memory, 0, self.half_bytes))
            self._describe()
            self._write_whole()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, which is gone with that. Once only."""
        if self._opened is not None:
            self._opened[1].close()
        self.file.__exit__(None, None, None)

    def run(self, workload: Workload, num_bytes: int) -> DiskRun:
        """Read or write so many bytes in random order, and wait for the last.

        Two callers share the depth, as a transfer lane's workers do; a depth of 1 has one. "mixed" gives one the reads and the
        other the writes.

        Raises:
            OSError: the device failed a block, or returned other bytes than were written.
        """
        callers = self._callers(workload)
        depth_each = max(1, workload.depth // len(callers))
        files = self._files(workload.block_bytes, depth_each)
        num_each = max(depth_each, num_bytes // workload.block_bytes // len(callers))
        shares = [
            (reads, self._order(workload.block_bytes, num_each, first=number)) for number, reads in enumerate(callers)
        ]
        started = time.perf_counter()
        with ThreadPoolExecutor(len(shares)) as pool:
            running: list[Future[NDArray[np.float64]]] = [
                pool.submit(self._call, files, workload.block_bytes, reads, calls) for reads, calls in shares
            ]
            seconds = np.concatenate([each.result() for each in running])
        elapsed = time.perf_counter() - started
        return DiskRun(bytes_per_s=len(seconds) * workload.block_bytes / elapsed, seconds=seconds)

    def fits(self, workload: Workload) -> bool:
        """Say whether the file is large enough for the depth, with blocks that do not touch."""
        return 2 * workload.block_bytes * workload.depth <= self.half_bytes

    def _callers(self, workload: Workload) -> list[bool]:
        """Whether each caller reads."""
        if workload.operation == "mixed":
            return [True, False]
        return [workload.operation == "read"] * min(2, workload.depth)

    def _order(self, block_bytes: int, num_blocks: int, *, first: int) -> list[Slots]:
        """Blocks of a half in random order, in calls of which each holds even ones or odd ones only; `first`: which first."""
        half = self.half_bytes // block_bytes
        calls: list[Slots] = []
        while num_blocks > 0:
            parity = (first + len(calls)) % 2
            blocks = self._random.permutation(np.arange(parity, half, 2, dtype=np.uint32))[:num_blocks]
            calls.append(blocks)
            num_blocks -= len(blocks)
        return calls

    def _call(self, files: BlockFiles, block_bytes: int, reads: bool, calls: Sequence[Slots]) -> NDArray[np.float64]:
        base, checksums = self._memory.addresses[0], self._checksums[block_bytes]
        half = np.uint32(self.half_bytes // block_bytes)
        taken: list[NDArray[np.float64]] = []
        for blocks in calls:
            addresses = base + blocks.astype(np.uint64) * np.uint64(block_bytes)
            seeds, seconds = np.zeros(len(blocks), np.uint64), np.zeros(len(blocks))
            if reads:
                errors = files.read(blocks, addresses, seeds, checksums[blocks], seconds)
            else:
                errors, _ = files.write(blocks + half, addresses, seeds, seconds)
            self._check(errors, "read" if reads else "write")
            taken.append(seconds)
        return np.concatenate(taken)

    def _check(self, errors: NDArray[np.int32], what: str) -> None:
        failed = errors[errors != 0]
        if len(failed):
            code = int(failed[0])
            told = "" if code > 0 else "other bytes came back than were written; "
            raise OSError(code if code > 0 else errno.EIO, f"{told}a {what} failed", str(self.directory))

    def _files(self, block_bytes: int, depth: int) -> BlockFiles:
        """The file in blocks of a size; one way of seeing it is kept open, and both ways see the same bytes."""
        if self._opened is not None and self._opened[0] == (block_bytes, depth):
            return self._opened[1]
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None
        files = BlockFiles(
            [self.file.path],
            num_slots=2 * self.half_bytes // block_bytes,
            slot_bytes=block_bytes,
            block_bytes=block_bytes,
            queue_depth=depth * -(-block_bytes // PART_BYTES),
            engine=self._engine,
            direct=self._direct,
        )
        self._opened = ((block_bytes, depth), files)
        if block_bytes not in self._checksums:
            view = bytes_view(self._memory, 0, self.half_bytes)
            starts = range(0, self.half_bytes - block_bytes + 1, block_bytes)
            self._checksums[block_bytes] = np.array(
                [checksum(view[start : start + block_bytes]) for start in starts], np.uint64
            )
        return files

    def _describe(self) -> None:
        files = self._files(_FILL_BLOCK_BYTES, _FILL_DEPTH)
        self.engine, self.direct = files.engine, files.direct
        reasons = (files.engine_reason, files.direct_reason, files.allocation_reason)
        self.reasons = tuple(reason.replace(self.file.path, str(self.directory)) for reason in reasons if reason)

    def _write_whole(self) -> None:
        files = self._files(_FILL_BLOCK_BYTES, _FILL_DEPTH)
        half = self.half_bytes // _FILL_BLOCK_BYTES
        slots = np.arange(2 * half, dtype=np.uint32)
        for start in range(0, 2 * half, _FILL_DEPTH):
            part = slots[start : start + _FILL_DEPTH]
            addresses = self._memory.addresses[0] + (part % half).astype(np.uint64) * np.uint64(_FILL_BLOCK_BYTES)
            errors, _ = files.write(part, addresses, np.zeros(len(part), np.uint64))
            self._check(errors, "write")
        files.sync()


def _fill(view: memoryview) -> None:
    """Random bytes, no two pages alike: some devices store equal or simple pages once."""
    words = np.frombuffer(view, np.uint64)
    random = np.random.Generator(np.random.SFC64(3))
    step = 1 << 20
    for start in range(0, len(words), step):
        part = words[start : start + step]
        part[:] = random.integers(0, 1 << 64, len(part), np.uint64)
