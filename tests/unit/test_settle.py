"""Waiting until a cache has done all that it does by itself, and holding that back while anything else is under way."""

import time
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, TierName
from tiercel.cache.assembly import assemble
from tiercel.tiers.faulty import FaultyTier, TierFaults


def slow_cache(directory: Path, *, delay_s: float = 0.05, **settings: object) -> Cache:
    """A cache whose writes to disk take longer."""
    assembly = assemble(MODEL, config(directory, host=40, disk=200, **settings))
    disk = TierName.DISK
    assembly.tiers[disk] = FaultyTier(assembly.tiers[disk], TierFaults(delay_rate=1.0, delay_s=delay_s))
    return Cache(assembly)


def test_a_settled_cache_has_nothing_under_way(tmp_path: Path) -> None:
    with slow_cache(tmp_path) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(4):
            sequence = cache.sequence(tokens(20, seed=seed))
            cache.store(sequence, engine.fill(sequence, at=20 * seed))
        assert not cache.settle(0.0)
        assert cache.settle(30.0)
        assert cache.stats().tickets["running"] == 0
        assert all(tier.num_writing == tier.num_pinned == 0 for tier in cache.stats().tiers)


def test_a_settled_cache_has_demoted_what_it_had_to(tmp_path: Path) -> None:
    with slow_cache(tmp_path, ssd_admission="on_evict", evict_start_threshold=0.5) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(36, seed=1))
        cache.store(sequence, engine.fill(sequence)).wait()
        assert cache.settle(30.0)
        host, disk = cache.stats().tiers
        assert host.num_ready <= 20
        assert disk.num_ready >= 16


@pytest.mark.parametrize("held_back", [False, True])
def test_room_is_made_beside_other_work_unless_told_otherwise(tmp_path: Path, held_back: bool) -> None:
    with slow_cache(tmp_path, delay_s=0.5, evict_start_threshold=0.5) as cache:
        if held_back:
            cache.relieve_when_idle()
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(20, seed=1))
        cache.store(sequence, engine.fill(sequence)).wait()
        sequence = cache.sequence(tokens(16, seed=2))
        ticket = cache.store(sequence, engine.fill(sequence))  # 36 blocks in use, 20 of them on disk already
        ticket.wait_source()
        while cache.stats().tiers[0].evicted == 0 and not ticket.done:
            time.sleep(0.001)
        assert ticket.done == held_back
        assert cache.settle(30.0)
        assert cache.stats().tiers[0].evicted >= 16
