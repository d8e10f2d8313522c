"""What `tiers/base.py` promises, held against every tier and every wrapper."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import (
    Bytes,
    TierKind,
    content_of,
    load,
    memory_with,
    random_bytes,
    random_labels,
    slots_of,
    store,
    tier_kinds,
    why_no_io_uring,
)
from tiercel.errors import CacheClosedError
from tiercel.tiers.base import BlockLabels, BlockStatus, Tier

OK, MISSING = BlockStatus.OK, BlockStatus.MISSING
SEED = 20250114


@pytest.fixture(params=tier_kinds(), ids=lambda kind: kind.label)
def kind(request: pytest.FixtureRequest) -> TierKind:
    kind: TierKind = request.param
    if "io_uring" in kind.label and why_no_io_uring():
        pytest.skip(why_no_io_uring())
    return kind


@pytest.fixture
def tier(kind: TierKind, tmp_path: Path) -> Iterator[Tier]:
    tier = kind.make(tmp_path)
    yield tier
    tier.close()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(SEED)


def check_bytes(kind: TierKind, got: Bytes, wanted: Bytes) -> None:
    if kind.keeps_bytes:
        np.testing.assert_array_equal(got, wanted)


def sample(tier: Tier, random: np.random.Generator, num_blocks: int) -> tuple[Bytes, BlockLabels]:
    return random_bytes(random, num_blocks, tier.block_bytes), random_labels(random, num_blocks)


@pytest.mark.parametrize("scattered", [False, True], ids=["contiguous", "scattered"])
def test_a_written_block_reads_back(kind: TierKind, tier: Tier, random: np.random.Generator, scattered: bool) -> None:
    rows, labels = sample(tier, random, 16)
    slots = random.permutation(16).astype(np.uint32)
    tier.reserve(slots)
    assert tier.write(slots, memory_with(rows, scattered=scattered), labels).tolist() == [OK] * 16
    order = random.permutation(16)
    statuses, got = load(tier, slots[order], scattered=scattered)
    assert statuses == [OK] * 16
    check_bytes(kind, got, rows[order])


def test_neighbouring_slots_do_not_mix(kind: TierKind, tier: Tier, random: np.random.Generator) -> None:
    rows, labels = sample(tier, random, 16)
    slots = np.arange(16, dtype=np.uint32)
    assert store(tier, slots, rows, labels) == [OK] * 16
    again, other = sample(tier, random, 2)
    assert store(tier, slots_of(3, 9), again, other) == [OK, OK]
    rows[[3, 9]] = again
    statuses, got = load(tier, slots)
    assert statuses == [OK] * 16
    check_bytes(kind, got, rows)


def test_a_slot_never_written_is_missing(tier: Tier) -> None:
    assert load(tier, slots_of(0, 15))[0] == [MISSING, MISSING]


def test_a_reserved_slot_is_missing_until_written(tier: Tier) -> None:
    tier.reserve(slots_of(4))
    assert load(tier, slots_of(4))[0] == [MISSING]


def test_reserving_a_written_slot_voids_it(tier: Tier, random: np.random.Generator) -> None:
    store(tier, slots_of(4), *sample(tier, random, 1))
    tier.reserve(slots_of(4))
    assert load(tier, slots_of(4))[0] == [MISSING]


def test_a_freed_slot_is_missing_and_others_stay(kind: TierKind, tier: Tier, random: np.random.Generator) -> None:
    rows, labels = sample(tier, random, 3)
    store(tier, slots_of(1, 2, 3), rows, labels)
    tier.free(slots_of(2))
    statuses, got = load(tier, slots_of(1, 2, 3))
    assert statuses == [OK, MISSING, OK]
    check_bytes(kind, got[[0, 2]], rows[[0, 2]])


def test_free_is_idempotent_and_takes_void_slots(tier: Tier, random: np.random.Generator) -> None:
    store(tier, slots_of(1), *sample(tier, random, 1))
    for _ in range(2):
        tier.free(slots_of(0, 1))
    assert load(tier, slots_of(1))[0] == [MISSING]


def test_a_freed_slot_can_be_written_again(kind: TierKind, tier: Tier, random: np.random.Generator) -> None:
    store(tier, slots_of(7), *sample(tier, random, 1))
    tier.free(slots_of(7))
    rows, labels = sample(tier, random, 1)
    assert store(tier, slots_of(7), rows, labels) == [OK]
    check_bytes(kind, load(tier, slots_of(7))[1], rows)


def test_empty_calls_do_nothing(tier: Tier) -> None:
    nothing = np.zeros((0, tier.block_bytes), dtype=np.uint8)
    labels = BlockLabels(parent=bytes(16), names=np.zeros((0, 16), dtype=np.uint8))
    assert store(tier, slots_of(), nothing, labels) == []
    assert load(tier, slots_of())[0] == []
    tier.free(slots_of())


def test_writing_an_unreserved_slot_is_the_callers_mistake(tier: Tier, random: np.random.Generator) -> None:
    rows, labels = sample(tier, random, 1)
    with pytest.raises(ValueError, match="reserve"):
        tier.write(slots_of(5), memory_with(rows), labels)


def test_slots_out_of_range_are_the_callers_mistake(tier: Tier) -> None:
    for call in (tier.reserve, tier.free, lambda slots: load(tier, slots)):
        with pytest.raises(ValueError, match="out of range"):
            call(slots_of(16))


def test_one_slot_may_be_read_twice_in_a_call(kind: TierKind, tier: Tier, random: np.random.Generator) -> None:
    rows, labels = sample(tier, random, 1)
    store(tier, slots_of(6), rows, labels)
    statuses, got = load(tier, slots_of(6, 6))
    assert statuses == [OK, OK]
    check_bytes(kind, got, rows[[0, 0]])


def test_stats_count_blocks_that_ended_well(tier: Tier, random: np.random.Generator) -> None:
    store(tier, slots_of(0, 1, 2), *sample(tier, random, 3))
    load(tier, slots_of(0, 1, 9))
    stats = tier.stats()
    assert (stats.num_slots, stats.block_bytes) == (tier.num_slots, tier.block_bytes) == (16, tier.block_bytes)
    assert (stats.blocks_written, stats.bytes_written) == (3, 3 * tier.block_bytes)
    assert (stats.blocks_read, stats.bytes_read) == (2, 2 * tier.block_bytes)
    assert (stats.blocks_corrupt, stats.io_errors) == (0, 0)


def test_after_close_every_call_says_so(tier: Tier, random: np.random.Generator) -> None:
    rows, labels = sample(tier, random, 1)
    tier.close()
    tier.close()
    calls = (
        lambda: tier.reserve(slots_of(0)),
        lambda: tier.free(slots_of(0)),
        lambda: tier.write(slots_of(0), memory_with(rows), labels),
        lambda: load(tier, slots_of(0)),
    )
    for call in calls:
        with pytest.raises(CacheClosedError):
            call()


def test_threads_work_on_their_own_slots_at_once(kind: TierKind, tier: Tier) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        random = np.random.default_rng((SEED, number))
        slots = np.arange(number * 4, number * 4 + 4, dtype=np.uint32)
        for turn in range(8):
            rows, labels = sample(tier, random, 4)
            wrote = store(tier, slots, rows, labels)
            target = memory_with(np.zeros_like(rows), scattered=turn % 2 == 0)
            read = tier.read(slots, target).tolist()
            equal = not kind.keeps_bytes or np.array_equal(content_of(target, tier.block_bytes), rows)
            if not (wrote == read == [OK] * 4 and equal):
                failures.append(f"thread {number}, turn {turn}: {wrote} {read} {equal}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
