"""What the machine can do, measured in a few seconds: the bounds that the demo's bandwidths are held against."""

import mmap
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_CHUNK_BYTES = 4 << 20
_NUM_CHUNKS = 64
_NUM_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """Bytes a second. direct: whether the disk was reached past the page cache."""

    memcpy: float
    disk_read: float
    disk_write: float
    direct: bool


def measure_machine(directory: Path) -> MachineSpeed:
    """Measure the copy bandwidth of one core, and the sequential bandwidth of the disk under a folder.

    Raises:
        OSError: the file cannot be written (256 MiB); nothing is left behind.
    """
    memcpy = _measure_memcpy()
    path = directory / "speed"
    try:
        try:
            write, read = _measure_disk(path, os.O_DIRECT)
            direct = True
        except OSError:  # not every file system has O_DIRECT; the caller says that it was not used
            write, read = _measure_disk(path, 0)
            direct = False
    finally:
        path.unlink(missing_ok=True)
    return MachineSpeed(memcpy=memcpy, disk_read=read, disk_write=write, direct=direct)


def _measure_memcpy() -> float:
    source = np.ones(128 << 20, dtype=np.uint8)
    target = np.zeros_like(source)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - began)
    return source.nbytes / statistics.median(seconds)


def _measure_disk(path: Path, flags: int) -> tuple[float, float]:
    """Write the file, then read it twice; the better read counts, for a first one may wait for the writes."""
    total = _CHUNK_BYTES * _NUM_CHUNKS
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags, 0o600)
    buffers = [mmap.mmap(-1, _CHUNK_BYTES) for _ in range(_NUM_THREADS)]
    try:
        os.posix_fallocate(descriptor, 0, total)
        for buffer in buffers:
            buffer.write(os.urandom(1 << 16) * (_CHUNK_BYTES >> 16))
        writes = [_timed(descriptor, buffers, os.pwritev) for _ in range(2)]
        reads = [_timed(descriptor, buffers, os.preadv) for _ in range(2)]
    finally:
        os.close(descriptor)
        for buffer in buffers:
            buffer.close()
    return total / min(writes), total / min(reads)


def _timed(descriptor: int, buffers: list[mmap.mmap], transfer: Callable[[int, list[mmap.mmap], int], int]) -> float:
    def every_fourth(thread: int) -> None:
        for chunk in range(thread, _NUM_CHUNKS, _NUM_THREADS):
            if transfer(descriptor, [buffers[thread]], chunk * _CHUNK_BYTES) != _CHUNK_BYTES:
                raise OSError(f"a transfer of {_CHUNK_BYTES} bytes ended early")

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        began = time.perf_counter()
        list(pool.map(every_fourth, range(_NUM_THREADS)))
        os.fdatasync(descriptor)
        return time.perf_counter() - began
