"""A disk that fails: the tier steps aside by itself, says so once, refuses at once, and comes back when the disk does."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import (
    ODD_BLOCK_BYTES,
    disk_options,
    load,
    random_bytes,
    random_labels,
    slots_of,
    store,
    stripe_folder,
)
from tiercel.errors import TierFailedError
from tiercel.tiers.base import BlockStatus
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.disk_health import Service
from tiercel.tiers.memory import page_aligned_bytes

OK, MISSING, IO_ERROR, NO_SPACE = BlockStatus.OK, BlockStatus.MISSING, BlockStatus.IO_ERROR, BlockStatus.NO_SPACE
PROBE_INTERVAL_S = 5.0


@dataclass
class Clock:
    """Time that stands until it is moved."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tier(tmp_path: Path, clock: Clock) -> Iterator[DiskTier]:
    options = replace(disk_options(tmp_path), failures_max=3, probe_interval_s=PROBE_INTERVAL_S)
    tier = DiskTier.open(options, clock=clock)
    yield tier
    tier.close()


def put(tier: DiskTier, *slots: int) -> list[int]:
    random = np.random.default_rng(5)
    return store(
        tier, slots_of(*slots), random_bytes(random, len(slots), ODD_BLOCK_BYTES), random_labels(random, len(slots))
    )


def out_of_service(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if getattr(record, "event", "") == "disk_out_of_service"]


def test_reads_of_a_device_that_fails_are_refused_until_it_serves_again(
    tier: DiskTier, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert put(tier, 0, 1) == [OK, OK]
    data = stripe_folder(tmp_path) / "data-0.bin"
    size = data.stat().st_size
    kept = data.read_bytes()
    os.truncate(data, 0)  # every read is short now
    for _ in range(3):
        assert load(tier, slots_of(0, 1))[0] == [IO_ERROR, IO_ERROR]
    for _ in range(3):
        with pytest.raises(TierFailedError, match="takes no reads: 3 calls in a row failed"):
            load(tier, slots_of(0, 1))
    assert "no reads" in tier.stats().out_of_service
    clock.now_s += PROBE_INTERVAL_S
    assert load(tier, slots_of(0))[0] == [IO_ERROR]  # the one call that is let through
    with pytest.raises(TierFailedError):
        load(tier, slots_of(0))
    with data.open("r+b") as file:
        file.write(kept)
    assert data.stat().st_size == size
    clock.now_s += PROBE_INTERVAL_S
    assert load(tier, slots_of(0, 1))[0] == [OK, OK]
    assert load(tier, slots_of(1))[0] == [OK]
    assert tier.stats().out_of_service == ""
    assert len(out_of_service(caplog)) == 1


def test_a_block_that_fails_among_good_ones_takes_nothing_out_of_service(tier: DiskTier, tmp_path: Path) -> None:
    assert put(tier, 0, 15) == [OK, OK]
    os.truncate(stripe_folder(tmp_path) / "data-0.bin", page_aligned_bytes(ODD_BLOCK_BYTES))
    for _ in range(10):
        assert load(tier, slots_of(0, 15))[0] == [OK, IO_ERROR]
    assert tier.stats().out_of_service == ""


@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "replaced"])
def test_a_directory_that_vanishes_stops_writes_and_keeps_reads(
    tier: DiskTier, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, replaced: bool
) -> None:
    assert put(tier, 0) == [OK]
    folder, aside = stripe_folder(tmp_path), tmp_path / "aside"
    folder.rename(aside)
    if replaced:
        shutil.copytree(aside, folder)
    clock.now_s += PROBE_INTERVAL_S
    for _ in range(3):
        tier.reserve(slots_of(1))
        with pytest.raises(TierFailedError, match="was replaced" if replaced else "is gone"):
            put(tier, 1)
    assert len(out_of_service(caplog)) == 1
    assert load(tier, slots_of(0, 1))[0] == [OK, MISSING]
    if replaced:
        shutil.rmtree(folder)
    aside.rename(folder)
    with pytest.raises(TierFailedError):  # not before the next probe
        put(tier, 1)
    clock.now_s += PROBE_INTERVAL_S
    assert put(tier, 1) == [OK]
    assert tier.stats().out_of_service == ""


def test_a_refused_write_leaves_its_slots_void(tier: DiskTier, tmp_path: Path, clock: Clock) -> None:
    assert put(tier, 0) == [OK]
    stripe_folder(tmp_path).rename(tmp_path / "aside")
    clock.now_s += PROBE_INTERVAL_S
    with pytest.raises(TierFailedError):
        put(tier, 0)
    assert load(tier, slots_of(0))[0] == [MISSING]


def test_only_failed_calls_in_a_row_count_and_a_full_disk_is_none(clock: Clock) -> None:
    service = Service("writes", failures_max=2, probe_interval_s=PROBE_INTERVAL_S, clock=clock)
    for status in (IO_ERROR, OK, IO_ERROR, BlockStatus.CORRUPT, NO_SPACE, NO_SPACE, NO_SPACE, MISSING, IO_ERROR):
        service.finish(np.array([status], np.uint8))
        service.admit()
    service.finish(np.array([MISSING, IO_ERROR], np.uint8))
    with pytest.raises(TierFailedError, match="writes"):
        service.admit()


def test_one_call_in_a_probe_interval_is_let_through(clock: Clock) -> None:
    service = Service("reads", failures_max=1, probe_interval_s=PROBE_INTERVAL_S, clock=clock)
    service.finish(np.array([IO_ERROR], np.uint8))
    for _ in range(3):
        clock.now_s += PROBE_INTERVAL_S
        service.admit()
        with pytest.raises(TierFailedError):
            service.admit()
