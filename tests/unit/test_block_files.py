"""The native block files: where bytes lie, what is checked, and what one block's failure does to others."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.tier_samples import why_no_io_uring
from tiercel import _native
from tiercel.tiers.memory import ContiguousMemory, allocate_memory, bytes_view

BLOCK_BYTES = 6000
SLOT_BYTES = 8192
SEED = 7

ENGINES = [
    pytest.param("io_uring", marks=pytest.mark.skipif(bool(why_no_io_uring()), reason=why_no_io_uring())),
    "threads",
]


def opened(*paths: Path, num_slots: int = 64, engine: str = "auto", **options: Any) -> _native.BlockFiles:
    return _native.BlockFiles(
        [str(path) for path in paths],
        num_slots=num_slots,
        slot_bytes=SLOT_BYTES,
        block_bytes=BLOCK_BYTES,
        queue_depth=4,
        engine=engine,
        **options,
    )


def filled_memory(num_blocks: int, seed: int = SEED) -> ContiguousMemory:
    random = np.random.default_rng(seed)
    memory = allocate_memory(num_blocks, BLOCK_BYTES)
    for block in range(num_blocks):
        bytes_view(memory, block, BLOCK_BYTES)[:] = random.bytes(BLOCK_BYTES)
    return memory


def all_bytes(memory: ContiguousMemory) -> list[bytes]:
    return [bytes(bytes_view(memory, block, BLOCK_BYTES)) for block in range(memory.num_blocks)]


def seeds_for(slots: NDArray[np.uint32]) -> NDArray[np.uint64]:
    return slots.astype(np.uint64) + 100


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
@pytest.mark.parametrize("scattered", [False, True], ids=["adjacent-memory", "shuffled-memory"])
def test_blocks_read_back_whatever_is_merged(tmp_path: Path, engine: str, direct: bool, scattered: bool) -> None:
    files = opened(tmp_path / "a", tmp_path / "b", engine=engine, direct=direct)
    memory, target = filled_memory(40), allocate_memory(40, BLOCK_BYTES)
    order = np.random.default_rng(SEED).permutation(40) if scattered else np.arange(40)
    slots = np.arange(3, 43, dtype=np.uint32)
    errors, checksums = files.write(slots, memory.addresses[order], seeds_for(slots))
    assert not errors.any()
    back = np.random.default_rng(SEED + 1).permutation(40)
    errors = files.read(slots[back], target.addresses[back], seeds_for(slots[back]), checksums[back])
    assert not errors.any()
    assert all_bytes(target) == [all_bytes(memory)[block] for block in order]
    assert (files.engine, files.engine_reason == "") == (engine, engine == "io_uring")


def test_slots_lie_striped_where_the_stub_says(tmp_path: Path) -> None:
    files = opened(tmp_path / "a", tmp_path / "b", num_slots=5, direct=False)
    memory = filled_memory(5)
    slots = np.arange(5, dtype=np.uint32)
    files.write(slots, memory.addresses, seeds_for(slots))
    content = [(tmp_path / name).read_bytes() for name in "ab"]
    assert [len(part) for part in content] == [3 * SLOT_BYTES, 2 * SLOT_BYTES]
    for slot, wanted in enumerate(all_bytes(memory)):
        start = slot // 2 * SLOT_BYTES
        assert content[slot % 2][start : start + BLOCK_BYTES] == wanted


def test_checksums_are_those_of_the_checksum_function(tmp_path: Path) -> None:
    memory = filled_memory(3)
    slots = np.arange(3, dtype=np.uint32)
    _, checksums = opened(tmp_path / "a").write(slots, memory.addresses, seeds_for(slots))
    wanted = [_native.checksum(data, int(seed)) for data, seed in zip(all_bytes(memory), seeds_for(slots), strict=True)]
    assert checksums.tolist() == wanted


def test_a_block_under_another_seed_is_a_mismatch(tmp_path: Path) -> None:
    files, memory = opened(tmp_path / "a"), filled_memory(4)
    slots = np.arange(4, dtype=np.uint32)
    _, checksums = files.write(slots, memory.addresses, seeds_for(slots))
    seeds = seeds_for(slots)
    seeds[2] += np.uint64(1)
    assert files.read(slots, memory.addresses, seeds, checksums).tolist() == [0, 0, _native.CHECKSUM_MISMATCH, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_cut_short_fails_only_the_blocks_behind_the_cut(tmp_path: Path, engine: str) -> None:
    files, memory = opened(tmp_path / "a", engine=engine), filled_memory(16)
    slots = np.arange(16, dtype=np.uint32)
    _, checksums = files.write(slots, memory.addresses, seeds_for(slots))
    os.truncate(tmp_path / "a", 10 * SLOT_BYTES + 512)
    errors = files.read(slots, memory.addresses, seeds_for(slots), checksums)
    assert errors.tolist() == [0] * 10 + [errno.EIO] * 6


def test_files_grow_keeping_their_blocks_and_shrink(tmp_path: Path) -> None:
    path, memory = tmp_path / "a", filled_memory(4)
    slots = np.arange(4, dtype=np.uint32)
    files = opened(path, num_slots=4)
    _, checksums = files.write(slots, memory.addresses, seeds_for(slots))
    files.close()
    for num_slots in (100, 2):
        files = opened(path, num_slots=num_slots)
        assert path.stat().st_size == num_slots * SLOT_BYTES
        kept = slots[:num_slots]
        assert not files.read(kept, memory.addresses[: len(kept)], seeds_for(kept), checksums[: len(kept)]).any()


def test_space_is_allocated_ahead(tmp_path: Path) -> None:
    files = opened(tmp_path / "a", num_slots=64)
    if files.allocation_reason:
        pytest.skip(files.allocation_reason)
    assert (tmp_path / "a").stat().st_blocks * 512 >= 64 * SLOT_BYTES


def test_calls_that_cannot_be_are_the_callers_mistake(tmp_path: Path) -> None:
    files, memory = opened(tmp_path / "a"), filled_memory(1)
    one = np.zeros(1, dtype=np.uint32)
    seeds = seeds_for(one)
    with pytest.raises(ValueError, match="out of range"):
        files.write(one + np.uint32(64), memory.addresses, seeds)
    with pytest.raises(ValueError, match="page-aligned"):
        files.write(one, memory.addresses + np.uint64(8), seeds)
    with pytest.raises(ValueError, match="length"):
        files.write(one, memory.addresses[:0], seeds)
    files.close()
    with pytest.raises(ValueError, match="closed"):
        files.write(one, memory.addresses, seeds)


def test_options_that_cannot_be_are_the_callers_mistake(tmp_path: Path) -> None:
    good: dict[str, Any] = {"num_slots": 1, "slot_bytes": 4096, "block_bytes": 100, "queue_depth": 1}
    wrongs: list[dict[str, Any]] = [
        {"num_slots": 0},
        {"slot_bytes": 4000},
        {"block_bytes": 0},
        {"queue_depth": 0},
        {"engine": "x"},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            _native.BlockFiles([str(tmp_path / "a")], **(good | wrong))
    with pytest.raises(ValueError, match="paths"):
        _native.BlockFiles([], **good)


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as raised:
        opened(tmp_path)
    assert raised.value.filename == str(tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_writes_that_give_way_to_reads_still_end(tmp_path: Path, engine: str) -> None:
    files = opened(tmp_path / "a", num_slots=64, engine=engine, write_bytes_beside_reads=1)
    memory, slots = filled_memory(64), np.random.default_rng(SEED).permutation(64).astype(np.uint32)
    read, written = slots[:32], slots[32:]
    _, checksums = files.write(read, memory.addresses[:32], seeds_for(read))
    _, checksums_written = files.write(written, memory.addresses[32:], seeds_for(written))
    stopped, failures = threading.Event(), []

    def keep_reading() -> None:
        target = allocate_memory(32, BLOCK_BYTES)
        while not stopped.is_set():
            failures.extend(files.read(read, target.addresses, seeds_for(read), checksums).nonzero()[0].tolist())

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(keep_reading) for _ in range(2)]
        try:
            for _ in range(20):
                errors, checksums_written = files.write(written, memory.addresses[32:], seeds_for(written))
                assert not errors.any()
        finally:
            stopped.set()
        for reader in readers:
            reader.result(timeout=30)
    assert not failures
    assert not files.read(written, memory.addresses[32:], seeds_for(written), checksums_written).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_each_block_took_is_told_to_whoever_asks(tmp_path: Path, engine: str) -> None:
    files = opened(tmp_path / "a", engine=engine)
    memory, slots = filled_memory(8), np.arange(0, 16, 2, dtype=np.uint32)
    seconds = np.full(8, -1.0)
    started = time.perf_counter()
    _, checksums = files.write(slots, memory.addresses, seeds_for(slots), seconds)
    written, seconds[:] = seconds.copy(), -1.0
    files.read(slots, memory.addresses, seeds_for(slots), checksums, seconds)
    elapsed = time.perf_counter() - started
    for each in (written, seconds):
        assert ((each > 0) & (each < elapsed)).all()
    for wrong in (np.zeros(7), np.zeros(9)):
        with pytest.raises(ValueError, match="seconds: length differs"):
            files.write(slots, memory.addresses, seeds_for(slots), wrong)
    narrow: Any = np.zeros(8, np.float32)
    with pytest.raises(TypeError):
        files.write(slots, memory.addresses, seeds_for(slots), narrow)
