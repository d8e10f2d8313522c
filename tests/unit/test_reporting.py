"""What a cache's status tells beyond plain counts: the hit-rate curve, eviction ages, outages and journal refusals."""

import errno
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache
from tiercel.index import EVICTION_AGE_BOUNDS_S
from tiercel.tiers.disk import DiskTier


def test_the_status_tells_the_hit_rate_of_other_capacities() -> None:
    with Cache.open(MODEL, replace(config(host=8), ghost_sample_rate=1.0)) as cache:
        engine = SmallEngine(cache.geometry)
        for _ in range(2):
            for seed in range(3):
                sequence = cache.sequence(tokens(6, seed=seed))
                cache.lookup(sequence).release()
                cache.store(sequence, engine.fill(sequence)).wait(10)
        told, curve = cache.stats().hit_curve, cache.hit_curve([2, 4, 8, 16, 32, 64])
        assert told is not None
        assert told.factors == (0.25, 0.5, 1, 2, 4, 8)
        assert (told.hit_rates, told.errors, told.num_blocks) == (curve.hit_rates, curve.errors, curve.num_blocks)
        assert told.hit_rates[0] == 0 < told.hit_rates[-1] == 0.5


def test_without_a_ghost_the_status_has_no_curve() -> None:
    with Cache.open(MODEL, replace(config(host=8), ghost_sample_rate=0.0)) as cache:
        assert cache.stats().hit_curve is None


def test_the_status_tells_how_old_evicted_blocks_were_by_tier() -> None:
    with Cache.open(MODEL, config(host=8)) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(3):
            sequence = cache.sequence(tokens(6, seed=seed))
            cache.store(sequence, engine.fill(sequence)).wait(10)
        (host,) = cache.stats().tiers
        assert host.evicted > 0
        assert host.eviction_age.count == host.evicted
        assert host.eviction_age.bounds == EVICTION_AGE_BOUNDS_S
        assert 0 <= host.eviction_age.sum < 60 * host.evicted


def test_an_outage_of_the_disk_is_counted_when_its_note_has_gone(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=0, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequences = [cache.sequence(tokens(2, seed=seed)) for seed in range(8)]
        for sequence in sequences:
            assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
        assert "disk_outage" not in cache.stats().activity.counters["fallbacks"]
        (data,) = tmp_path.glob("*/data-0.bin")
        os.truncate(data, 0)  # every read is short now
        for sequence in sequences:
            assert not cache.load(sequence, engine.blocks(0, 2)).wait(10).ok
        snapshot = cache.stats()
        assert snapshot.activity.counters["fallbacks"]["disk_outage"] == 1
        assert any("takes no reads" in note for note in snapshot.notes)


def test_what_the_journal_refuses_is_counted_as_an_error_by_act(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=0, disk=64)) as cache:
        disk = cache._assembly.disk
        assert disk is not None
        for _ in range(2):
            disk._records._log_refusal("put", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        assert +Counter(cache.stats().activity.counters["errors"]) == {"journal_put": 2}


def test_the_status_tells_what_the_disk_had_to_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "the filesystem takes no direct I/O"
    monkeypatch.setattr(DiskTier, "fallbacks", {"direct_io": reason})
    with Cache.open(MODEL, config(tmp_path, disk=8)) as cache:
        assert any(reason in note for note in cache.stats().notes)


@pytest.mark.parametrize("set_by_s", [0.0, -3600.0, 86400.0])
def test_the_status_tells_for_how_long_the_cache_is_open(set_by_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock is set to meanwhile."""
    before, time_of_day = time.monotonic(), time.time
    with Cache.open(MODEL, config(host=8)) as cache:
        monkeypatch.setattr(time, "time", lambda: time_of_day() + set_by_s)
        time.sleep(0.01)
        assert 0.01 <= cache.stats().uptime_s <= time.monotonic() - before


def test_a_page_cache_that_was_asked_for_is_noted_with_its_setting(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, disk=8, ssd_direct_io=False)) as cache:
        assert any("ssd_direct_io is false" in note for note in cache.stats().notes)
