"""An arena that outlives its process: what is found in it again, and what is not believed."""

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.helpers.tier_samples import (
    ODD_BLOCK_BYTES,
    Bytes,
    ScatteredMemory,
    arena_options,
    kept_host,
    load,
    random_bytes,
    random_labels,
    slots_of,
    store,
)
from tiercel.errors import ConfigError, DirectoryLockedError
from tiercel.tiers.arena_directory import ArenaOptions, KeptArena
from tiercel.tiers.arena_records import HEADER_BYTES, parse_header, read_records, write_records
from tiercel.tiers.base import Addresses, BlockLabels, BlockStatus
from tiercel.tiers.host import HostTier

OK, MISSING = BlockStatus.OK, BlockStatus.MISSING
NUM_BLOCKS = 6
RECORD_BYTES = 48


class Filled:
    """Blocks that were stored in a directory's arena, in slots 0, 1, ..., before its tier was closed."""

    def __init__(self, directory: Path) -> None:
        random = np.random.default_rng(20260711)
        self.directory = directory
        self.rows: Bytes = random_bytes(random, NUM_BLOCKS, ODD_BLOCK_BYTES)
        self.labels: BlockLabels = random_labels(random, NUM_BLOCKS)
        tier = kept_host(arena_options(directory))
        assert store(tier, np.arange(NUM_BLOCKS, dtype=np.uint32), self.rows, self.labels) == [OK] * NUM_BLOCKS
        tier.close()

    @property
    def arena(self) -> Path:
        return self.directory / "arena"

    @property
    def records(self) -> Path:
        return self.directory / "arena.records"

    def check(self, tier: HostTier, *slots: int) -> None:
        """Assert that these blocks were recovered, in this order, under their names, and nothing else."""
        found = tier.recovered
        assert found.slots.tolist() == list(slots)
        np.testing.assert_array_equal(found.keys, self.labels.names[np.array(slots, int)])
        before = np.vstack([np.frombuffer(self.labels.parent, np.uint8)[None], self.labels.names])
        np.testing.assert_array_equal(found.parents, before[np.array(slots, int)])
        statuses, got = load(tier, slots_of(*slots))
        assert statuses == [OK] * len(slots)
        np.testing.assert_array_equal(got, self.rows[np.array(slots, int)])
        others = [slot for slot in range(tier.num_slots) if slot not in slots]
        assert set(load(tier, slots_of(*others))[0]) <= {MISSING}

    def reopen(self, **settings: int) -> HostTier:
        return kept_host(arena_options(self.directory, **settings))


@pytest.fixture
def filled(arena_directory: Path) -> Filled:
    return Filled(arena_directory)


def test_blocks_are_there_again_in_the_order_in_which_they_were_last_used(filled: Filled) -> None:
    tier = filled.reopen()
    filled.check(tier, 0, 1, 2, 3, 4, 5)
    tier.keep_order(slots_of(5, 3, 0, 1))
    tier.free(slots_of(4))
    tier.reserve(slots_of(2))
    tier.close()
    tier = filled.reopen()
    filled.check(tier, 5, 3, 0, 1)
    assert tier.cold_reason == ""
    tier.close()


def test_a_larger_capacity_keeps_every_block_and_a_smaller_one_what_fits(filled: Filled) -> None:
    tier = filled.reopen(num_slots=40)
    filled.check(tier, 0, 1, 2, 3, 4, 5)
    tier.close()
    tier = filled.reopen(num_slots=4)
    filled.check(tier, 0, 1, 2, 3)
    tier.close()
    assert filled.arena.stat().st_size == 4 * 8192
    tier = filled.reopen(num_slots=40)
    filled.check(tier, 0, 1, 2, 3)
    tier.close()


def test_a_slot_is_void_in_the_records_while_it_is_written(filled: Filled) -> None:
    """Whatever the process is killed at, no record stands over bytes that are not whole."""
    tier = filled.reopen()
    seen: list[list[int]] = []

    class Watching(ScatteredMemory):
        def gather(self, targets: Addresses) -> None:
            data = filled.records.read_bytes()
            seen.append(read_records(data, parse_header(data), num_slots=16)[0].slots.tolist())
            raise RuntimeError("it dies here")

    tier.reserve(slots_of(1, 8))
    with pytest.raises(RuntimeError):
        tier.write(slots_of(1, 8), Watching(filled.rows[:2]), random_labels(np.random.default_rng(1), 2))
    tier.close()
    assert seen == [[0, 2, 3, 4, 5]]
    tier = filled.reopen()
    filled.check(tier, 0, 2, 3, 4, 5)
    tier.close()


def test_of_blocks_written_in_place_only_those_that_arrived_are_there_again(arena_directory: Path) -> None:
    tier = kept_host(arena_options(arena_directory))
    labels = random_labels(np.random.default_rng(2), 3)
    tier.reserve(slots_of(7, 8, 9))
    tier.mark_written(slots_of(7, 8, 9), labels, np.array([OK, BlockStatus.CORRUPT, OK], np.uint8))
    assert load(tier, slots_of(7, 8, 9))[0] == [OK, MISSING, OK]
    tier.close()
    tier = kept_host(arena_options(arena_directory))
    found = tier.recovered
    assert found.slots.tolist() == [7, 9]
    np.testing.assert_array_equal(found.keys, labels.names[[0, 2]])
    np.testing.assert_array_equal(found.parents[1], labels.names[1])
    tier.close()


def _with_header(filled: Filled, **changes: object) -> None:
    data = filled.records.read_bytes()
    header = parse_header(data)
    blocks, _ = read_records(data, header, num_slots=16)
    write_records(filled.records, msgspec.structs.replace(header, **changes), blocks)


def _edit(path: Path, at: int, text: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(text)


COLD: list[tuple[str, Callable[[Filled], object]]] = [
    ("another model \\(other\\)", lambda f: _with_header(f, fingerprint="ab" * 32, model_id="other")),
    ("blocks of 4096 bytes, 5000", lambda f: _with_header(f, block_bytes=4096, stride_bytes=4096)),
    ("another arena", lambda f: _with_header(f, arena_inode=1)),
    ("format version 9", lambda f: _edit(f.records, 8, b"\x09")),
    ("another kind", lambda f: _edit(f.records, 0, b"x")),
    ("header of its records is damaged", lambda f: _edit(f.records, 60, b"\xff")),
    ("header of its records is damaged", lambda f: _edit(f.records, 12, b"\xff\xff\xff\xff")),
    ("end after 100 bytes", lambda f: os.truncate(f.records, 100)),
    ("no records", lambda f: f.records.unlink()),
]


@pytest.mark.parametrize(("reason", "spoil"), COLD, ids=[str(number) for number in range(len(COLD))])
def test_an_arena_that_cannot_be_understood_is_begun_anew_and_the_reason_said(
    filled: Filled, reason: str, spoil: Callable[[Filled], object], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(filled)
    inode = filled.arena.stat().st_ino
    tier = filled.reopen()
    filled.check(tier)
    assert any("is lost" in record.getMessage() for record in caplog.records)
    assert re.search(reason, tier.cold_reason)
    assert filled.arena.stat().st_ino != inode
    store(tier, slots_of(3), filled.rows[:1], random_labels(np.random.default_rng(3), 1))
    tier.close()
    tier = filled.reopen()
    assert (tier.recovered.slots.tolist(), tier.cold_reason) == ([3], "")
    tier.close()


def test_a_damaged_record_costs_its_block_alone(filled: Filled, caplog: pytest.LogCaptureFixture) -> None:
    record = [HEADER_BYTES + slot * RECORD_BYTES for slot in range(NUM_BLOCKS)]
    _edit(filled.records, record[1] + 3, b"\xa5")  # its name
    _edit(filled.records, record[2] + 20, b"\xa5")  # its parent's
    data = filled.records.read_bytes()
    _edit(filled.records, record[4], data[record[5] : record[5] + RECORD_BYTES])  # another slot's
    tier = filled.reopen()
    filled.check(tier, 0, 3, 5)
    assert any("3 damaged records" in line.getMessage() for line in caplog.records)
    tier.close()


def test_files_that_were_cut_cost_what_was_cut_off(filled: Filled) -> None:
    os.truncate(filled.records, HEADER_BYTES + 4 * RECORD_BYTES + 7)
    os.truncate(filled.arena, 3 * 8192)
    tier = filled.reopen()
    filled.check(tier, 0, 1, 2)
    tier.close()
    assert filled.arena.stat().st_size == 16 * 8192


def test_what_a_killed_start_left_unfinished_does_no_harm(filled: Filled) -> None:
    filled.records.with_name("arena.records.tmp").write_bytes(b"half of it")
    os.truncate(filled.arena, 100 * 8192)  # it was about to grow
    tier = filled.reopen()
    filled.check(tier, 0, 1, 2, 3, 4, 5)
    tier.close()


def test_a_second_owner_is_refused_and_told_who_the_first_is(filled: Filled) -> None:
    tier = filled.reopen()
    with pytest.raises(DirectoryLockedError, match=rf"process {os.getpid()}.*another cpu_arena_dir"):
        filled.reopen()
    filled.check(tier, 0, 1, 2, 3, 4, 5)
    tier.close()
    filled.reopen().close()


def test_a_directory_that_is_no_memory_or_not_its_owners_alone_is_refused(
    tmp_path: Path, arena_directory: Path
) -> None:
    def refused(options: ArenaOptions, reason: str) -> None:
        with pytest.raises(ConfigError, match=reason):
            KeptArena.open(options)

    refused(arena_options(tmp_path / "arena"), "cpu_arena_dir.*no memory")
    arena_directory.mkdir()
    arena_directory.chmod(0o750)
    refused(arena_options(arena_directory), "nobody else may enter")
    arena_directory.chmod(0o700)
    link = arena_directory.with_name("link")
    link.symlink_to(arena_directory)
    refused(arena_options(link), "nobody else may enter")
    (arena_directory / "file").touch()
    refused(arena_options(arena_directory / "file"), "nobody else may enter")
    refused(arena_options(arena_directory / "file" / "below"), "cannot be used")


def test_who_only_opened_the_arena_by_its_name_holds_nobody_up(filled: Filled) -> None:
    with filled.arena.open("rb") as reader:
        tier = filled.reopen(wait_s=0)
        filled.check(tier, 0, 1, 2, 3, 4, 5)
        with pytest.raises(BlockingIOError):
            fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
        tier.close()
