"""Blocks that are larger than a request: moved in parts, and good only if every part is."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import why_no_io_uring
from tiercel import _native
from tiercel.tiers.memory import ContiguousMemory, allocate_memory, bytes_view

MIB = 1 << 20
SLOT_BYTES = 5 * MIB + 8192
"""Three parts, the last one short."""
BLOCK_BYTES = SLOT_BYTES - 100
SLOTS = np.arange(6, dtype=np.uint32)
SEEDS = SLOTS.astype(np.uint64) + 9
OK = 0

ENGINES = [
    pytest.param("io_uring", marks=pytest.mark.skipif(bool(why_no_io_uring()), reason=why_no_io_uring())),
    "threads",
]


def opened(directory: Path, engine: str, queue_depth: int = 4) -> _native.BlockFiles:
    """Two files; even slots lie in the first one."""
    return _native.BlockFiles(
        [str(directory / "a"), str(directory / "b")],
        num_slots=len(SLOTS),
        slot_bytes=SLOT_BYTES,
        block_bytes=BLOCK_BYTES,
        queue_depth=queue_depth,
        engine=engine,
    )


def filled_memory() -> ContiguousMemory:
    memory = allocate_memory(len(SLOTS), BLOCK_BYTES)
    for block in range(len(SLOTS)):
        bytes_view(memory, block, BLOCK_BYTES)[:] = np.random.default_rng(block).bytes(BLOCK_BYTES)
    return memory


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("queue_depth", [1, 4])
def test_a_block_larger_than_a_request_comes_back_whole(tmp_path: Path, engine: str, queue_depth: int) -> None:
    files, memory, target = opened(tmp_path, engine, queue_depth), filled_memory(), allocate_memory(6, BLOCK_BYTES)
    errors, checksums = files.write(SLOTS, memory.addresses, SEEDS)
    assert not errors.any()
    back = np.array([4, 1, 5, 0, 3, 2])
    assert not files.read(SLOTS[back], target.addresses, SEEDS[back], checksums[back]).any()
    for row, block in enumerate(back):
        assert bytes(bytes_view(target, row, BLOCK_BYTES)) == bytes(bytes_view(memory, int(block), BLOCK_BYTES))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lost_bytes", [4096, 3 * MIB, SLOT_BYTES], ids=["the last part", "two parts", "all parts"])
def test_a_part_that_fails_fails_its_block_and_no_other(tmp_path: Path, engine: str, lost_bytes: int) -> None:
    files, memory = opened(tmp_path, engine), filled_memory()
    _, checksums = files.write(SLOTS, memory.addresses, SEEDS)
    os.truncate(tmp_path / "b", 3 * SLOT_BYTES - lost_bytes)  # of slot 5
    errors = files.read(SLOTS, memory.addresses, SEEDS, checksums)
    assert errors.tolist() == [OK] * 5 + [errno.EIO]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("at", [0, 2 * MIB, 4 * MIB - 1, BLOCK_BYTES - 1])
def test_a_wrong_byte_in_any_part_is_seen(tmp_path: Path, engine: str, at: int) -> None:
    files, memory = opened(tmp_path, engine), filled_memory()
    _, checksums = files.write(SLOTS, memory.addresses, SEEDS)
    files.close()
    with (tmp_path / "a").open("r+b") as file:  # slot 2 is the second one in it
        file.seek(SLOT_BYTES + at)
        byte = file.read(1)[0]
        file.seek(SLOT_BYTES + at)
        file.write(bytes([byte ^ 1]))
    errors = opened(tmp_path, engine).read(SLOTS, memory.addresses, SEEDS, checksums)
    assert errors.tolist() == [0, 0, _native.CHECKSUM_MISMATCH, 0, 0, 0]
