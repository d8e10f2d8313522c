"""The native journal: what is appended comes back, and damage costs no more than it must."""

import errno
import os
import resource
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiercel import _native

NUM_SLOTS = 1000
SEED = 41


def keys_of(*numbers: int) -> NDArray[np.uint8]:
    """A recognisable key for each number."""
    return np.array([[number % 256] * 16 for number in numbers], dtype=np.uint8).reshape(-1, 16)


def parent_of(number: int) -> bytes:
    return keys_of(number).tobytes()


def put(journal: _native.Journal, parent: int, blocks: dict[int, int]) -> None:
    """Record blocks {key number: slot}; the checksum is the slot times ten."""
    slots = np.array(list(blocks.values()), dtype=np.uint32)
    journal.put(parent_of(parent), keys_of(*blocks), slots, slots.astype(np.uint64) * 10)


def free(journal: _native.Journal, *slots: int) -> None:
    journal.free(np.array(slots, dtype=np.uint32))


def opened(folder: Path, num_slots: int = NUM_SLOTS) -> _native.Journal:
    journal = _native.Journal(str(folder), num_slots=num_slots)
    journal.recover()
    return journal


def recovered(folder: Path, num_slots: int = NUM_SLOTS) -> _native.Recovered:
    return _native.Journal(str(folder), num_slots=num_slots).recover()


def mapping(found: _native.Recovered) -> dict[int, tuple[int, int]]:
    """{slot: (key number, parent number)}, in order; checks the checksums on the way."""
    assert (found.checksums == found.slots.astype(np.uint64) * 10).all()
    return {
        int(slot): (int(key[0]), int(parent[0]))
        for slot, key, parent in zip(found.slots, found.keys, found.parents, strict=True)
    }


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*.log"), key=lambda path: int(path.stem.split("-")[1]))


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let files grow no further: the write that crosses the limit is short, the next one fails."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_blocks_come_back_with_their_parents_in_order_of_writing(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 30, 2: 10, 3: 20})
    put(journal, 3, {4: 5})
    journal.close()
    assert list(mapping(recovered(tmp_path)).items()) == [(30, (1, 9)), (10, (2, 1)), (20, (3, 2)), (5, (4, 3))]


def test_a_freed_slot_does_not_come_back(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 0, 2: 1})
    free(journal, 0, 7)
    assert mapping(recovered(tmp_path)) == {1: (2, 1)}


def test_the_last_block_written_to_a_slot_is_the_one_that_counts(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 0, 2: 1})
    put(journal, 8, {5: 0})
    assert mapping(recovered(tmp_path)) == {1: (2, 1), 0: (5, 8)}


def test_recovery_is_idempotent_and_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    for run in range(4):
        journal = opened(tmp_path)
        put(journal, 9, {run: run})
    assert mapping(recovered(tmp_path)) == mapping(recovered(tmp_path)) == {run: (run, 9) for run in range(4)}


def test_slots_beyond_the_capacity_are_left_out_and_counted(tmp_path: Path) -> None:
    put(opened(tmp_path), 9, {1: 3, 2: 900})
    found = recovered(tmp_path, num_slots=10)
    assert (mapping(found), found.out_of_range) == ({3: (1, 9)}, 1)


def test_a_checkpoint_replaces_what_came_before_and_keeps_what_came_after(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 1, 2: 2})
    journal.begin_checkpoint()
    put(journal, 2, {3: 3})
    free(journal, 1)
    slots = np.array([2, 1], dtype=np.uint32)
    journal.write_checkpoint(keys_of(1, 9), keys_of(2, 1), slots, slots.astype(np.uint64) * 10)
    assert list(mapping(recovered(tmp_path)).items()) == [(2, (2, 1)), (3, (3, 2))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "journal-1.log"]


def test_a_checkpoint_that_was_begun_and_not_written_changes_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 1})
    journal.begin_checkpoint()
    put(journal, 1, {2: 2})
    (tmp_path / "checkpoint-1.tmp").write_bytes(b"half")
    assert mapping(recovered(tmp_path)) == {1: (1, 9), 2: (2, 1)}


def test_an_empty_checkpoint_empties_the_journal(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 1})
    journal.begin_checkpoint()
    nothing = keys_of()
    journal.write_checkpoint(nothing, nothing, np.zeros(0, np.uint32), np.zeros(0, np.uint64))
    found = recovered(tmp_path)
    assert (mapping(found), found.corrupt_records, journal.appended_bytes) == ({}, 0, 0)


def test_every_cut_of_the_tail_gives_a_prefix_of_what_was_written(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for number in range(6):
        put(journal, 9, {number: number})
    journal.close()
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    record = len(whole) // 6
    for length in range(len(whole) - 1, -1, -5):
        path.write_bytes(whole[:length])
        found = recovered(tmp_path)
        assert list(mapping(found)) == list(range(length // record))
        assert (found.torn_bytes, found.corrupt_records) == (length % record, 0)
        assert path.stat().st_size == length - length % record


def test_every_flipped_byte_costs_one_record_and_invents_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for number in range(5):
        put(journal, 9, {number: number})
    journal.close()
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    record = len(whole) // 5
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        found = recovered(tmp_path)
        lost = position // record
        assert list(mapping(found)) == [number for number in range(5) if number != lost]
        assert found.torn_bytes + found.corrupt_records > 0


def test_a_missing_segment_is_counted(tmp_path: Path) -> None:
    for number in range(3):
        put(opened(tmp_path), 9, {number: number})
    segments(tmp_path)[1].unlink()
    found = recovered(tmp_path)
    assert (list(mapping(found)), found.corrupt_records) == ([0, 2], 1)


def test_a_damaged_checkpoint_gives_the_records_that_are_good(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    num_blocks = 60_000  # more than one record
    journal = _native.Journal(str(tmp_path), num_slots=num_blocks)
    journal.recover()
    journal.begin_checkpoint()
    slots = np.arange(num_blocks, dtype=np.uint32)
    keys = np.zeros((num_blocks, 16), dtype=np.uint8)
    journal.write_checkpoint(keys, keys, slots, slots.astype(np.uint64) * 10)
    path = tmp_path / "checkpoint-1"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    found = recovered(tmp_path, num_slots=num_blocks)
    assert 0 < len(found.slots) < num_blocks
    assert found.corrupt_records > 0


def test_a_segment_under_another_name_is_not_believed(tmp_path: Path) -> None:
    put(opened(tmp_path), 9, {1: 1})
    segments(tmp_path)[0].rename(tmp_path / "journal-5.log")
    assert mapping(recovered(tmp_path)) == {}


def test_hostile_files_are_survived_without_large_allocations(tmp_path: Path) -> None:
    random = np.random.default_rng(SEED)
    huge = struct.pack("<IIIIQQ", 0x4C4E524A, 0, 1, 0xFFFFFFF0, 0, 0)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    for number, content in enumerate([b"", b"x", huge * 1000, random.bytes(100_000), b"JRNL" * 10_000]):
        (tmp_path / f"journal-{number}.log").write_bytes(content)
        (tmp_path / f"checkpoint-{number}").write_bytes(content)
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (64 << 20), limit[1]))
        try:
            assert len(recovered(tmp_path).slots) == 0
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)


def test_an_append_without_room_leaves_the_journal_usable(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 1})
    size = segments(tmp_path)[0].stat().st_size
    with file_size_limit(size + 20), pytest.raises(OSError, match="cannot write") as raised:
        put(journal, 1, {2: 2})
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(segments(tmp_path)[0])
    assert segments(tmp_path)[0].stat().st_size == size
    put(journal, 1, {3: 3})
    found = recovered(tmp_path)
    assert (mapping(found), found.torn_bytes, found.corrupt_records) == ({1: (1, 9), 3: (3, 1)}, 0, 0)


def test_a_checkpoint_without_room_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    put(journal, 9, {1: 1})
    journal.begin_checkpoint()
    slots = np.arange(NUM_SLOTS, dtype=np.uint32)
    keys = np.zeros((NUM_SLOTS, 16), dtype=np.uint8)
    with file_size_limit(4096), pytest.raises(OSError, match="cannot write"):
        journal.write_checkpoint(keys, keys, slots, slots.astype(np.uint64))
    put(journal, 1, {2: 2})
    assert mapping(recovered(tmp_path)) == {1: (1, 9), 2: (2, 1)}
    assert not list(tmp_path.glob("*.tmp"))


def test_looking_at_a_journal_changes_nothing(tmp_path: Path) -> None:
    put(opened(tmp_path), 9, {1: 1})
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes() + b"torn")
    before = path.read_bytes()
    found = _native.replay_journal(str(tmp_path), num_slots=NUM_SLOTS)
    assert (mapping(found), found.torn_bytes, path.read_bytes()) == ({1: (1, 9)}, 4, before)


def test_a_random_history_is_recovered_as_a_dict_would_have_it(tmp_path: Path) -> None:
    random = np.random.default_rng(SEED)
    model: dict[int, int] = {}
    journal = opened(tmp_path)
    for step in range(400):
        act = random.random()
        slots = random.choice(NUM_SLOTS, size=int(random.integers(1, 6)), replace=False).tolist()
        if act < 0.6:
            put(journal, 0, {(step + i) % 251: slot for i, slot in enumerate(slots)})
            model |= {slot: (step + i) % 251 for i, slot in enumerate(slots)}
        elif act < 0.9:
            free(journal, *slots)
            model = {slot: key for slot, key in model.items() if slot not in slots}
        elif act < 0.95:
            journal.close()
            journal = opened(tmp_path)
        else:
            journal.begin_checkpoint()
            order = np.array(list(model), dtype=np.uint32)
            keys = keys_of(*model.values())
            journal.write_checkpoint(keys, keys, order, order.astype(np.uint64) * 10)
    found = recovered(tmp_path)
    assert {slot: key for slot, (key, _) in mapping(found).items()} == model, f"seed {SEED}"
    assert (found.torn_bytes, found.corrupt_records) == (0, 0)


def test_appending_before_recovery_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="recover"):
        free(_native.Journal(str(tmp_path), num_slots=1), 0)


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        _native.Journal(str(tmp_path / "nowhere"), num_slots=1)
    assert raised.value.filename == str(tmp_path / "nowhere")
