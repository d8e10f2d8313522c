"""Checksums, shared memory and copies: known values, what is refused, and that nothing but the target changes."""

import ctypes
import errno
import itertools
import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiercel import _native
from tiercel._native import Arena, CopyProgram, Sequence, checksum, copy_blocks

MIB = 1 << 20
PIECE = [4096, 64, 0, 2, 32, 32, 2, 16, 16]  # fills 64 bytes of a slot


def address_of(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def num_open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_shared_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE


def program(*pieces: list[int], block_bytes: int = 64) -> CopyProgram:
    return CopyProgram(np.array(pieces, np.int64).reshape(-1, 9), block_bytes)


def mapped_bytes(arena: Arena) -> np.ndarray:
    with mmap.mmap(arena.fd, arena.num_bytes) as view:
        return np.frombuffer(view.read(), np.uint8)


def test_checksums_equal_published_and_reference_values() -> None:
    # XXH3_64bits of the empty input, and of the ramp below as python-xxhash 3 computes it.
    assert checksum(b"") == 0x2D06800538D394C2
    ramp = bytes(range(256)) * 20
    assert checksum(ramp) == 0xF875F2FA2E99DF80
    assert checksum(ramp, 7) == 0x302BBF8A71AE9BD4
    assert checksum(ramp[:100], seed=7) == 0xF99B79905A88DC51


def test_checksums_take_every_contiguous_buffer_and_only_those() -> None:
    data = np.arange(1000, dtype=np.int64)
    expected = checksum(data.tobytes())
    assert checksum(data) == expected
    assert checksum(data.data) == expected
    assert checksum(bytearray(data.tobytes())) == expected
    assert checksum(data.reshape(10, 100)) == expected
    with pytest.raises(ValueError, match="contiguous"):
        checksum(data[::2])
    with pytest.raises(TypeError):
        checksum(5)


def test_a_flipped_bit_changes_the_checksum() -> None:
    data = np.zeros(200_000, np.uint8)
    expected = checksum(data)
    for position in (0, 99_999, 199_999):
        data[position] ^= 1
        assert checksum(data) != expected
        data[position] ^= 1
    assert checksum(data) == expected


def test_cpu_features_match_the_kernels_list() -> None:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        assert not any(_native.cpu_features().values())
        return
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    assert _native.cpu_features() == {name: name in flags for name in ("sha_ni", "avx2", "avx512f")}


def test_an_arena_is_zero_filled_page_aligned_and_shared_through_its_fd() -> None:
    arena = Arena(3 * MIB + 5)
    assert arena.num_bytes == 3 * MIB + 5
    assert arena.address % mmap.PAGESIZE == 0
    assert not mapped_bytes(arena).any()
    payload = np.frombuffer(b"seen by every mapping", np.uint8)
    target = arena.address + 3 * MIB + 5 - len(payload)
    copy_blocks(np.array([address_of(payload)], np.uint64), np.array([target], np.uint64), len(payload))
    assert mapped_bytes(arena)[-len(payload) :].tobytes() == payload.tobytes()
    arena.close()


def test_an_arena_of_one_process_is_zero_filled_and_no_other_process_has_it() -> None:
    num_fds = num_open_fds()
    for num_bytes, hugepages in ((5 * MIB + 5, True), (5 * MIB + 5, False), (7, True)):
        arena = Arena(num_bytes, hugepages=hugepages, shared=False)
        assert arena.address % (2 * MIB if arena.huge else mmap.PAGESIZE) == 0
        arena.prefault(0, num_bytes)
        held = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(arena.address))
        assert not held.any()
        held[-1] = 9
        arena.prefault(0, num_bytes)
        assert held[-1] == 9
        with pytest.raises(ValueError, match="of this process alone"):
            _ = arena.fd
        assert num_open_fds() == num_fds
        assert f"{arena.address:x}-" in Path("/proc/self/maps").read_text()
        address = arena.address
        arena.close()
        assert f"{address:x}-" not in Path("/proc/self/maps").read_text()


def test_a_forked_child_neither_has_an_arena_of_one_process_nor_unmaps_what_lies_there() -> None:
    arena = Arena(4 * MIB, shared=False)
    arena.prefault(0, 4 * MIB)
    child = os.fork()
    if child == 0:
        try:
            maps = Path("/proc/self/maps").read_text()
            had_it = f"{arena.address:x}-" in maps
            libc = ctypes.CDLL(None, use_errno=True)
            libc.mmap.restype = ctypes.c_void_p
            there = libc.mmap(ctypes.c_void_p(arena.address), ctypes.c_size_t(4 * MIB), 3, 0x32, -1, ctypes.c_long(0))
            arena.close()
            kept = f"{there:x}-" in Path("/proc/self/maps").read_text()
            os._exit(2 * had_it + 4 * (not kept))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    arena.close()


def test_prefault_makes_pages_resident_and_keeps_their_bytes() -> None:
    arena = Arena(32 * MIB, hugepages=False)
    payload = np.full(5000, 7, np.uint8)
    copy_blocks(np.array([address_of(payload)], np.uint64), np.array([arena.address + 100], np.uint64), len(payload))
    before = resident_shared_bytes()
    parts = [(0, 10 * MIB + 1), (10 * MIB + 1, 32 * MIB)]
    threads = [threading.Thread(target=arena.prefault, args=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resident_shared_bytes() - before >= 31 * MIB
    assert mapped_bytes(arena)[100:5100].tobytes() == payload.tobytes()
    arena.close()


def test_whoever_has_an_arenas_file_cannot_change_its_length() -> None:
    arena = Arena(2 * mmap.PAGESIZE, hugepages=False)
    for length in (0, mmap.PAGESIZE, 4 * mmap.PAGESIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, length)


def test_an_arena_larger_than_memory_is_refused_with_enomem_and_leaves_nothing() -> None:
    num_fds = num_open_fds()
    for num_bytes in (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 2, 1 << 60, (1 << 64) - 1):
        for hugepages, shared in itertools.product((True, False), repeat=2):
            with pytest.raises(OSError, match="arena of") as caught:
                Arena(num_bytes, hugepages=hugepages, shared=shared)
            assert caught.value.errno == errno.ENOMEM
    assert num_open_fds() == num_fds


def test_closing_gives_memory_and_fd_back_and_may_be_repeated() -> None:
    num_fds = num_open_fds()
    arena = Arena(MIB)
    assert num_open_fds() == num_fds + 1
    arena.close()
    arena.close()
    assert num_open_fds() == num_fds
    uses: list[Callable[[], object]] = [lambda: arena.address, lambda: arena.fd, lambda: arena.prefault(0, 1)]
    for use in uses:
        with pytest.raises(ValueError, match="closed"):
            use()


def test_arenas_refuse_no_bytes_and_ranges_outside() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Arena(0)
    arena = Arena(MIB)
    for start, stop in ((0, MIB + 1), (5, 4)):
        with pytest.raises(ValueError, match="does not lie in"):
            arena.prefault(start, stop)
    arena.prefault(MIB, MIB)
    arena.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: 0}, "engine address"),
        ({0: -4096}, "engine address"),
        ({3: 0}, "counts"),
        ({6: -1}, "counts"),
        ({8: 0}, "run bytes"),
        ({2: -1}, "leaves the block"),
        ({2: 1}, "leaves the block"),
        ({2: 64}, "leaves the block"),
        ({3: 3}, "leaves the block"),
        ({6: 5}, "leaves the block"),
        ({5: 31}, "overlaps itself"),
        ({5: -32}, "overlaps itself"),
        ({5: 2**62}, "leaves the block"),
        ({3: 2**62}, "leaves the block"),
        ({6: 2**62}, "leaves the block"),
        ({8: 2**63 - 1}, "leaves the block"),
    ],
)
def test_malformed_pieces_are_a_value_error(changes: dict[int, int], message: str) -> None:
    program(PIECE)
    piece = list(PIECE)
    for field, value in changes.items():
        piece[field] = value
    with pytest.raises(ValueError, match=f"piece 0: .*{message}"):
        program(piece)


def test_overlapping_pieces_are_a_value_error_and_gaps_are_not() -> None:
    even = [4096, 64, 0, 4, 16, 16, 1, 0, 8]
    odd = [4096, 64, 8, 4, 16, 16, 1, 0, 8]
    program(even, odd)
    program(even)
    program(odd)
    for other in ([4096, 64, 15, 1, 0, 0, 1, 0, 2], [4096, 64, 63, 1, 0, 0, 1, 0, 1], odd):
        with pytest.raises(ValueError, match="overlap at byte"):
            program(even, odd, other)


def test_empty_programs_and_blocks_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one piece"):
        program()
    for block_bytes in (0, -64):
        with pytest.raises(ValueError, match="block_bytes"):
            program(PIECE, block_bytes=block_bytes)


def test_copies_refuse_bad_arguments_before_a_byte_is_copied() -> None:
    engine, slots = np.ones(256, np.uint8), np.zeros(256, np.uint8)
    copies = program([address_of(engine), 64, 0, 1, 0, 0, 1, 0, 64])
    good = np.array([address_of(slots), address_of(slots) + 64], np.uint64)
    cases = [
        (np.array([0], np.int64), good, 1, "differ in length"),
        (np.array([0, -1], np.int64), good, 1, "negative"),
        (np.array([0, 1], np.int64), np.array([good[0], 0], np.uint64), 1, "null"),
        (np.array([0, 1], np.int64), good, 0, "num_threads"),
    ]
    for blocks, addresses, num_threads, message in cases:
        for copy in (copies.gather, copies.scatter):
            with pytest.raises(ValueError, match=message):
                copy(blocks, addresses, num_threads)
    for sources, targets, block_bytes in ((good, good[:1], 64), (good, np.zeros(2, np.uint64), 64), (good, good, 0)):
        with pytest.raises(ValueError, match=r"differ in length|null|block_bytes"):
            copy_blocks(sources, targets, block_bytes)
    unfit: list[Any] = [np.array([0, 1], np.int32), np.array([[0], [1]]), np.array([0.0, 1.0])]
    for array in unfit:
        with pytest.raises(TypeError):
            copies.gather(array, good)
    assert not slots.any()
    assert engine.all()
    copies.gather(np.array([], np.int64), np.array([], np.uint64))


def ticks_of_another_thread_during(call: Callable[[], object]) -> int:
    """How often a thread that mostly sleeps got the GIL while `call` ran."""
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.0005):
            ticks += 1

    ticker = threading.Thread(target=tick)
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(10)  # so that only a call that lets go of the GIL lets the other thread in
    try:
        ticker.start()
        before = ticks
        call()
        return ticks - before
    finally:
        sys.setswitchinterval(switch_interval)
        stop.set()
        ticker.join(10)


def test_long_calls_let_other_threads_run() -> None:
    source, target = np.ones(128 * MIB, np.uint8), np.zeros(128 * MIB, np.uint8)
    sources, targets = np.array([address_of(source)], np.uint64), np.array([address_of(target)], np.uint64)
    copies = CopyProgram(np.array([[address_of(source), len(source), 0, 1, 0, 0, 1, 0, len(source)]]), len(source))
    sequence = Sequence(bytes(16), 16, np.zeros(16 * 200_000, np.int32))
    block = np.zeros(1, np.int64)
    assert ticks_of_another_thread_during(lambda: sum(range(100_000))) == 0
    assert ticks_of_another_thread_during(lambda: copy_blocks(sources, targets, len(source))) > 0
    assert ticks_of_another_thread_during(lambda: copies.gather(block, targets)) > 0
    assert ticks_of_another_thread_during(lambda: copies.scatter(block, targets)) > 0
    assert ticks_of_another_thread_during(lambda: checksum(source)) > 0
    assert ticks_of_another_thread_during(sequence.keys) > 0
