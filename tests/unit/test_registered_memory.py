"""Memory that is registered with io_uring: the same outcomes as with any other, and never a page that is gone."""

import ctypes
import errno
import mmap
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import why_no_io_uring
from tiercel import _native
from tiercel.tiers.memory import ContiguousMemory, allocate_memory, bytes_view

MIB = 1 << 20
NUM_BLOCKS = 12
SLOTS = np.arange(NUM_BLOCKS, dtype=np.uint32)
SEEDS = SLOTS.astype(np.uint64) + 9

pytestmark = pytest.mark.skipif(bool(why_no_io_uring()), reason=why_no_io_uring())

SIZES = pytest.mark.parametrize("slot_bytes", [8192, 5 * MIB + 8192], ids=["merged", "in parts"])


def opened(path: Path, slot_bytes: int) -> _native.BlockFiles:
    return _native.BlockFiles(
        [str(path)],
        num_slots=NUM_BLOCKS,
        slot_bytes=slot_bytes,
        block_bytes=slot_bytes - 100,
        queue_depth=4,
        engine="io_uring",
    )


def filled_memory(slot_bytes: int, seed: int = 0) -> ContiguousMemory:
    memory = allocate_memory(NUM_BLOCKS, slot_bytes)
    for block in range(NUM_BLOCKS):
        bytes_view(memory, block, slot_bytes)[:] = np.random.default_rng(seed + block).bytes(slot_bytes)
    return memory


def use(files: _native.BlockFiles, memory: ContiguousMemory, slot_bytes: int) -> None:
    files.use_memory(int(memory.addresses[0]), NUM_BLOCKS * slot_bytes, slot_bytes)


@SIZES
def test_blocks_come_back_whole_and_the_memory_is_pinned_only_once_it_is_used(tmp_path: Path, slot_bytes: int) -> None:
    files, memory, target = opened(tmp_path / "a", slot_bytes), filled_memory(slot_bytes), filled_memory(slot_bytes, 99)
    use(files, memory, slot_bytes)
    use(files, target, slot_bytes)
    assert files.registered_bytes == 0
    errors, checksums = files.write(SLOTS, memory.addresses, SEEDS)
    assert not errors.any()
    assert files.registered_bytes == NUM_BLOCKS * slot_bytes
    shuffled = np.random.default_rng(1).permutation(NUM_BLOCKS)
    for back in (shuffled, np.arange(NUM_BLOCKS)):  # neighbours on disk that are none in memory go as vectors
        assert not files.read(SLOTS[back], target.addresses, SEEDS[back], checksums[back]).any()
        for row, block in enumerate(back):
            left, right = bytes_view(target, row, slot_bytes - 100), bytes_view(memory, int(block), slot_bytes - 100)
            assert bytes(left) == bytes(right)
    assert (files.registered_bytes, files.memory_reason) == (2 * NUM_BLOCKS * slot_bytes, "")


@SIZES
def test_a_file_cut_short_fails_only_the_blocks_behind_the_cut(tmp_path: Path, slot_bytes: int) -> None:
    files, memory = opened(tmp_path / "a", slot_bytes), filled_memory(slot_bytes)
    use(files, memory, slot_bytes)
    _, checksums = files.write(SLOTS, memory.addresses, SEEDS)
    os.truncate(tmp_path / "a", 7 * slot_bytes + 512)
    errors = files.read(SLOTS, memory.addresses, SEEDS, checksums)
    assert errors.tolist() == [0] * 7 + [errno.EIO] * 5
    assert files.registered_bytes > 0


@SIZES
def test_a_wrong_byte_is_seen(tmp_path: Path, slot_bytes: int) -> None:
    files, memory = opened(tmp_path / "a", slot_bytes), filled_memory(slot_bytes)
    use(files, memory, slot_bytes)
    _, checksums = files.write(SLOTS, memory.addresses, SEEDS)
    other = opened(tmp_path / "a", slot_bytes)
    other.write(SLOTS[3:4], memory.addresses[4:5], SEEDS[3:4])
    errors = files.read(SLOTS, memory.addresses, SEEDS, checksums)
    assert errors.tolist() == [0] * 3 + [_native.CHECKSUM_MISMATCH] + [0] * 8


@SIZES
def test_writes_that_the_kernel_refuses_fail_alone_with_its_errno(tmp_path: Path, slot_bytes: int) -> None:
    files, memory = opened(tmp_path / "a", slot_bytes), filled_memory(slot_bytes)
    use(files, memory, slot_bytes)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7 * slot_bytes, hard))
    try:
        errors, _ = files.write(SLOTS, memory.addresses, SEEDS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert errors.tolist() == [0] * 7 + [errno.EFBIG] * 5
    assert files.registered_bytes > 0


def test_memory_that_was_forgotten_may_be_replaced_at_its_address(tmp_path: Path) -> None:
    """What a ring would still hold are the pages that lay there before."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    fixed = 0x10
    files, memory = opened(tmp_path / "a", 8192), filled_memory(8192)
    address = int(memory.addresses[0])
    use(files, memory, 8192)
    files.write(SLOTS, memory.addresses, SEEDS)
    files.forget_memory(address)
    assert files.registered_bytes == 0
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed
    assert libc.mmap(address, NUM_BLOCKS * 8192, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == address
    for block in range(NUM_BLOCKS):
        bytes_view(memory, block, 8192)[:] = np.random.default_rng(50 + block).bytes(8192)
    errors, checksums = files.write(SLOTS, memory.addresses, SEEDS)
    assert not errors.any()
    assert not files.read(SLOTS, filled_memory(8192).addresses, SEEDS, checksums).any()


def test_memory_that_cannot_be_is_the_callers_mistake(tmp_path: Path) -> None:
    files = opened(tmp_path / "a", 8192)
    for address, num_bytes in ((0, 4096), (4097, 4096), (4096, 0)):
        with pytest.raises(ValueError, match="memory"):
            files.use_memory(address, num_bytes, 4096)
    files.forget_memory(4096)  # never in use: nothing to forget
