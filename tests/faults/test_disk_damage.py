"""Files of a disk tier are damaged behind its back: the damaged blocks are reported, the others are served."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import (
    ODD_BLOCK_BYTES,
    Bytes,
    disk_options,
    load,
    random_bytes,
    random_labels,
    slots_of,
    store,
    stripe_folder,
)
from tiercel.tiers.base import BlockLabels, BlockStatus
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.memory import PAGE_BYTES, page_aligned_bytes

OK, MISSING, CORRUPT, IO_ERROR = BlockStatus.OK, BlockStatus.MISSING, BlockStatus.CORRUPT, BlockStatus.IO_ERROR
STRIDE = page_aligned_bytes(ODD_BLOCK_BYTES)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def filled(tmp_path: Path, random: np.random.Generator) -> Iterator[tuple[DiskTier, Bytes, BlockLabels]]:
    """A tier with blocks in slots 0 to 7, synced; not closed."""
    tier = DiskTier.open(disk_options(tmp_path))
    rows, labels = random_bytes(random, 8, ODD_BLOCK_BYTES), random_labels(random, 8)
    assert store(tier, np.arange(8, dtype=np.uint32), rows, labels) == [OK] * 8
    yield tier, rows, labels
    tier.close()


def flip_bit(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize(
    "position", [0, 1, 511, 512, PAGE_BYTES - 1, PAGE_BYTES, ODD_BLOCK_BYTES // 2, ODD_BLOCK_BYTES - 1]
)
def test_one_flipped_bit_anywhere_in_a_block_is_found(
    filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path, position: int
) -> None:
    tier, rows, _ = filled
    flip_bit(stripe_folder(tmp_path) / "data-0.bin", 5 * STRIDE + position)
    statuses, got = load(tier, np.arange(8, dtype=np.uint32))
    assert statuses == [OK] * 5 + [CORRUPT] + [OK] * 2
    np.testing.assert_array_equal(got[:5], rows[:5])
    assert tier.stats().blocks_corrupt == 1


def test_a_flipped_bit_behind_a_block_harms_nobody(filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path) -> None:
    tier, rows, _ = filled
    flip_bit(stripe_folder(tmp_path) / "data-0.bin", 5 * STRIDE + ODD_BLOCK_BYTES)
    statuses, got = load(tier, np.arange(8, dtype=np.uint32))
    assert statuses == [OK] * 8
    np.testing.assert_array_equal(got, rows)


def test_a_block_that_lies_in_another_ones_slot_is_found(
    filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path
) -> None:
    tier, _, _ = filled
    path = stripe_folder(tmp_path) / "data-0.bin"
    data = bytearray(path.read_bytes())
    data[STRIDE : 2 * STRIDE], data[:STRIDE] = data[:STRIDE], data[STRIDE : 2 * STRIDE]
    with path.open("r+b") as file:
        file.write(data[: 2 * STRIDE])
    assert load(tier, slots_of(0, 1, 2))[0] == [CORRUPT, CORRUPT, OK]


def test_a_data_file_cut_short_fails_the_blocks_behind_the_cut(
    filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path
) -> None:
    tier, _, _ = filled
    with (stripe_folder(tmp_path) / "data-0.bin").open("r+b") as file:
        file.truncate(6 * STRIDE + 100)
    assert load(tier, np.arange(8, dtype=np.uint32))[0] == [OK] * 6 + [IO_ERROR] * 2
    assert tier.stats().io_errors == 2


def test_a_data_file_cut_short_before_a_start_gives_corrupt_blocks(
    filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path
) -> None:
    filled[0].close()
    with (stripe_folder(tmp_path) / "data-0.bin").open("r+b") as file:
        file.truncate(6 * STRIDE)
    tier = DiskTier.open(disk_options(tmp_path))
    assert load(tier, np.arange(8, dtype=np.uint32))[0] == [OK] * 6 + [CORRUPT] * 2
    tier.close()


def test_a_restart_finds_names_parents_and_bytes(filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path) -> None:
    first, rows, labels = filled
    first.free(slots_of(7))
    first.close()
    tier = DiskTier.open(disk_options(tmp_path))
    found = tier.recovered
    assert found.slots.tolist() == list(range(7))
    np.testing.assert_array_equal(found.keys, labels.names[:7])
    assert [parent.tobytes() for parent in found.parents] == [
        labels.parent,
        *(name.tobytes() for name in labels.names[:6]),
    ]
    statuses, got = load(tier, found.slots)
    assert statuses == [OK] * 7
    np.testing.assert_array_equal(got, rows[:7])
    assert load(tier, slots_of(7))[0] == [MISSING]
    tier.close()


def test_a_checkpoint_keeps_everything_in_the_order_given(
    filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path
) -> None:
    first, rows, _ = filled
    first.free(slots_of(2))
    first.checkpoint(slots_of(5, 2, 12, 1, 0))
    first.close()
    tier = DiskTier.open(disk_options(tmp_path))
    found = tier.recovered
    assert found.slots.tolist() == [5, 1, 0, 3, 4, 6, 7]
    np.testing.assert_array_equal(load(tier, found.slots)[1], rows[found.slots])
    tier.close()


def test_a_journal_that_has_grown_asks_for_a_checkpoint(tmp_path: Path, random: np.random.Generator) -> None:
    tier = DiskTier.open(replace(disk_options(tmp_path), checkpoint_bytes=200))
    assert not tier.wants_checkpoint
    store(tier, slots_of(0, 1, 2, 3, 4, 5), random_bytes(random, 6, ODD_BLOCK_BYTES), random_labels(random, 6))
    assert tier.wants_checkpoint
    tier.checkpoint(slots_of(0, 1, 2, 3, 4, 5))
    assert not tier.wants_checkpoint
    tier.close()


def test_what_was_cleared_does_not_come_back_from_any_file(
    filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path
) -> None:
    tier, _, labels = filled
    tier.free(np.arange(8, dtype=np.uint32))
    tier.checkpoint(np.empty(0, dtype=np.uint32))
    names = [name.tobytes() for name in labels.names]
    for path in stripe_folder(tmp_path).glob("[jc][oh]*-*"):  # journals and checkpoints
        assert not any(name in path.read_bytes() for name in names), path


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_journal_never_yields_a_wrong_block(
    filled: tuple[DiskTier, Bytes, BlockLabels], tmp_path: Path, random: np.random.Generator, seed: int
) -> None:
    """Slots are rewritten under new names while the journal of it is damaged at random places."""
    first, rows, labels = filled
    content = {name.tobytes(): row for name, row in zip(labels.names, rows, strict=True)}
    for start in (0, 3, 5):
        more, others = random_bytes(random, 3, ODD_BLOCK_BYTES), random_labels(random, 3)
        store(first, np.arange(start, start + 3, dtype=np.uint32), more, others)
        content |= {name.tobytes(): row for name, row in zip(others.names, more, strict=True)}
    first.close()
    damage = np.random.default_rng(seed)
    (path,) = stripe_folder(tmp_path).glob("journal-*.log")
    data = bytearray(path.read_bytes())
    for _ in range(int(damage.integers(1, 4))):
        start = int(damage.integers(len(data)))
        stop = start + int(damage.integers(1, 80))
        if damage.random() < 0.3:
            del data[start:stop]
        else:
            data[start:stop] = damage.bytes(len(data[start:stop]))
    path.write_bytes(data)
    tier = DiskTier.open(disk_options(tmp_path))
    found = tier.recovered
    statuses, got = load(tier, found.slots)
    for key, status, row in zip(found.keys, statuses, got, strict=True):
        assert status in (OK, CORRUPT)
        assert status == CORRUPT or np.array_equal(row, content[key.tobytes()])
    tier.close()
