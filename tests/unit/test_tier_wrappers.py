"""Tiers that fail or are slow on purpose, and what the host tier offers beside the seam."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import (
    ODD_BLOCK_BYTES,
    content_of,
    disk_options,
    load,
    random_bytes,
    random_labels,
    slots_of,
    store,
)
from tiercel.errors import TierFailedError
from tiercel.tiers.base import BlockStatus, TierName
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.faulty import FaultyTier, TierFaults
from tiercel.tiers.host import HostTier
from tiercel.tiers.null import NullTier
from tiercel.tiers.throttled import ThrottledTier, TierLimits

OK = BlockStatus.OK
NUM_SLOTS = 64
ALL = np.arange(NUM_SLOTS, dtype=np.uint32)


@pytest.fixture
def host() -> Iterator[HostTier]:
    tier = HostTier(num_slots=NUM_SLOTS, block_bytes=ODD_BLOCK_BYTES)
    yield tier
    tier.close()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(8)


def test_failed_writes_leave_their_slots_void_and_the_others_written(
    host: HostTier, random: np.random.Generator
) -> None:
    faulty = FaultyTier(host, TierFaults(seed=1, write_error_rate=0.2, no_space_rate=0.2))
    rows = random_bytes(random, NUM_SLOTS, ODD_BLOCK_BYTES)
    wrote = store(faulty, ALL, rows, random_labels(random, NUM_SLOTS))
    assert set(wrote) == {OK, BlockStatus.IO_ERROR, BlockStatus.NO_SPACE}
    read, got = load(host, ALL)
    assert read == [OK if status == OK else BlockStatus.MISSING for status in wrote]
    good = np.array(wrote) == OK
    np.testing.assert_array_equal(got[good], rows[good])
    counts = faulty.counts.blocks
    assert counts[BlockStatus.IO_ERROR] == wrote.count(BlockStatus.IO_ERROR)
    assert counts[BlockStatus.NO_SPACE] == wrote.count(BlockStatus.NO_SPACE)


def test_failed_writes_keep_the_labels_of_the_others_apart(tmp_path: Path, random: np.random.Generator) -> None:
    tier = DiskTier.open(disk_options(tmp_path))
    labels = random_labels(random, 16)
    faulty = FaultyTier(tier, TierFaults(seed=2, write_error_rate=0.3))
    wrote = store(faulty, ALL[:16], random_bytes(random, 16, ODD_BLOCK_BYTES), labels)
    tier.close()
    tier = DiskTier.open(disk_options(tmp_path))
    found = tier.recovered
    tier.close()
    assert sorted(found.slots.tolist()) == [slot for slot, status in enumerate(wrote) if status == OK]
    parents = [labels.parent, *(name.tobytes() for name in labels.names)]
    for slot, parent, key in zip(found.slots, found.parents, found.keys, strict=True):
        assert (parent.tobytes(), key.tobytes()) == (parents[slot], parents[slot + 1])


def test_failed_reads_deliver_garbage_and_the_others_their_bytes(host: HostTier, random: np.random.Generator) -> None:
    rows = random_bytes(random, NUM_SLOTS, ODD_BLOCK_BYTES)
    store(host, ALL, rows, random_labels(random, NUM_SLOTS))
    faulty = FaultyTier(host, TierFaults(seed=3, read_error_rate=0.1, corrupt_rate=0.2, missing_rate=0.1))
    statuses, got = load(faulty, ALL, scattered=True)
    assert set(statuses) == {OK, BlockStatus.IO_ERROR, BlockStatus.CORRUPT, BlockStatus.MISSING}
    for status, row, wanted in zip(statuses, got, rows, strict=True):
        assert np.array_equal(row, wanted) or status == BlockStatus.CORRUPT
        assert status != BlockStatus.CORRUPT or not np.array_equal(row, wanted)


def test_the_same_seed_gives_the_same_faults(host: HostTier, random: np.random.Generator) -> None:
    store(host, ALL, random_bytes(random, NUM_SLOTS, ODD_BLOCK_BYTES), random_labels(random, NUM_SLOTS))
    faults = TierFaults(seed=4, read_error_rate=0.5)
    first, second, other = (
        load(FaultyTier(host, drawn), ALL)[0] for drawn in (faults, faults, TierFaults(seed=5, read_error_rate=0.5))
    )
    assert first == second != other


def test_a_tier_that_fails_is_out_of_service_and_voids_what_it_was_to_write(
    host: HostTier, random: np.random.Generator
) -> None:
    faulty = FaultyTier(host, TierFaults(fail_after_calls=2))
    rows, labels = random_bytes(random, 1, ODD_BLOCK_BYTES), random_labels(random, 1)
    assert store(faulty, slots_of(0), rows, labels) == [OK]
    host.reserve(slots_of(1))
    for call in (
        lambda: faulty.reserve(slots_of(2)),
        lambda: faulty.write(slots_of(1), host.memory(slots_of(0)), labels),
        lambda: load(faulty, slots_of(0)),
    ):
        with pytest.raises(TierFailedError):
            call()
    assert load(host, slots_of(0, 1))[0] == [OK, BlockStatus.MISSING]


def test_delays_are_slept_through_the_sleep_that_was_given(host: HostTier) -> None:
    slept: list[float] = []
    faulty = FaultyTier(host, TierFaults(delay_rate=1.0, delay_s=0.25), sleep=slept.append)
    faulty.reserve(slots_of(0))
    assert (slept, faulty.counts.delays, faulty.counts.calls) == ([0.25], 1, 1)


def test_a_throttled_tier_takes_the_time_of_the_device_it_models(random: np.random.Generator) -> None:
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    null = NullTier(name=TierName.DISK, num_slots=NUM_SLOTS, block_bytes=1000)
    limits = TierLimits(read_bytes_per_s=50_000, write_bytes_per_s=10_000, latency_s=0.5)
    tier = ThrottledTier(null, limits, clock=lambda: now, sleep=sleep)
    assert store(tier, ALL[:20], random_bytes(random, 20, 1000), random_labels(random, 20)) == [OK] * 20
    assert now == pytest.approx(100 + 2 + 0.5)
    load(tier, ALL[:10])
    assert now == pytest.approx(102.5 + 0.2 + 0.5)
    with pytest.raises(ValueError, match="positive"):
        TierLimits(read_bytes_per_s=0)


def test_host_slots_written_in_place_are_readable_once_marked(
    host: HostTier, tmp_path: Path, random: np.random.Generator
) -> None:
    disk = DiskTier.open(disk_options(tmp_path))
    rows = random_bytes(random, 3, ODD_BLOCK_BYTES)
    labels = random_labels(random, 3)
    store(disk, slots_of(4, 5, 6), rows, labels)
    slots = slots_of(9, 30, 31)
    host.reserve(slots)
    statuses = disk.read(slots_of(4, 5, 6), host.memory(slots))
    assert statuses.tolist() == [OK] * 3
    assert load(host, slots)[0] == [BlockStatus.MISSING] * 3
    host.mark_written(slots, labels, statuses)
    read, got = load(host, slots)
    assert read == [OK] * 3
    np.testing.assert_array_equal(got, rows)
    np.testing.assert_array_equal(content_of(host.memory(slots).slice(1, 3), ODD_BLOCK_BYTES), rows[1:])
    with pytest.raises(ValueError, match="reserve"):
        host.mark_written(slots, labels, statuses)
    disk.close()


def test_prefault_touches_everything_and_says_how_far_it_is() -> None:
    host = HostTier(num_slots=100, block_bytes=1 << 20)
    reports: list[tuple[int, int]] = []
    host.prefault(2, lambda done, total: reports.append((done, total)))
    host.close()
    total = 100 << 20
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert reports[-1] == (total, total)
