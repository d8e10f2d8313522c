"""Reads and writes of the native block files at once: reads go first, and neither waits for ever."""

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import why_no_io_uring
from tiercel import _native
from tiercel.tiers.memory import allocate_memory

BLOCK_BYTES = 1 << 16
NUM_READ = 1500
READERS = 3
ENGINES = [
    pytest.param("io_uring", marks=pytest.mark.skipif(bool(why_no_io_uring()), reason=why_no_io_uring())),
    "threads",
]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_write_ends_while_reads_never_stop(tmp_path: Path, engine: str) -> None:
    files = _native.BlockFiles(
        [str(tmp_path / "blocks")],
        num_slots=NUM_READ + 32,
        slot_bytes=BLOCK_BYTES,
        block_bytes=BLOCK_BYTES,
        queue_depth=64,
        engine=engine,
        direct=True,
    )
    source = allocate_memory(NUM_READ, BLOCK_BYTES)
    slots = np.arange(NUM_READ, dtype=np.uint32)
    seeds = slots.astype(np.uint64)
    _, checksums = files.write(slots, source.addresses, seeds)
    written = threading.Event()
    failed: list[int] = []

    def read() -> None:
        target = allocate_memory(NUM_READ, BLOCK_BYTES)
        while not written.is_set():
            errors = files.read(slots, target.addresses, seeds, checksums)
            failed.extend(errors[errors != 0].tolist())

    def write() -> None:
        new = np.arange(NUM_READ, NUM_READ + 32, dtype=np.uint32)
        errors, _ = files.write(new, source.addresses[:32], new.astype(np.uint64))
        failed.extend(errors[errors != 0].tolist())
        ended.set()

    ended = threading.Event()
    readers = [threading.Thread(target=read) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    writer = threading.Thread(target=write)
    writer.start()
    in_time = ended.wait(10)
    written.set()
    for thread in (*readers, writer):
        thread.join(30)
    files.close()
    assert in_time, "a write of 32 blocks waits until nobody reads"
    assert failed == []
