"""The hit-rate curve that a running cache tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache


def test_a_cache_tells_the_hit_rate_of_a_larger_one(tmp_path: Path) -> None:
    with Cache.open(MODEL, replace(config(tmp_path, host=8, disk=0), ghost_sample_rate=1.0)) as cache:
        engine = SmallEngine(cache.geometry)
        for _ in range(2):
            for seed in range(3):
                sequence = cache.sequence(tokens(6, seed=seed))
                cache.lookup(sequence).release()
                assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
        curve = cache.hit_curve([6, 17, 18, 32])
        assert curve.num_blocks == 36
        assert curve.sample_rate == 1
        # Between a sequence's two lookups come twelve blocks of others; its own first block is the youngest of its six.
        assert curve.hit_rates == pytest.approx((0, 5 / 12, 0.5, 0.5))
        assert all(error >= 0 for error in curve.errors)


def test_blocks_that_were_stored_and_never_looked_up_before_are_hits(tmp_path: Path) -> None:
    with Cache.open(MODEL, replace(config(tmp_path, host=64, disk=0), ghost_sample_rate=1.0)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(6, seed=1))
        cache.store(sequence, engine.fill(sequence)).wait(10)
        cache.lookup(sequence).release()
        assert cache.hit_curve([64]).hit_rates == (1.0,)


def test_the_default_capacities_reach_from_an_eighth_to_eight_times_the_cache(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=0)) as cache:
        curve = cache.hit_curve()
        assert (curve.capacities_blocks[0], curve.capacities_blocks[-1]) == (8, 512)
        assert set(curve.hit_rates) == {0.0}
        with pytest.raises(ValueError, match="513 is above"):
            cache.hit_curve([513])
        with pytest.raises(ValueError, match="must not be negative"):
            cache.hit_curve([-1])


def test_a_reset_starts_the_curve_again(tmp_path: Path) -> None:
    with Cache.open(MODEL, replace(config(tmp_path, host=64, disk=0), ghost_sample_rate=1.0)) as cache:
        sequence = cache.sequence(np.arange(64, dtype=np.int32))
        for _ in range(2):
            cache.lookup(sequence).release()
        assert cache.hit_curve([64]).hit_rates[0] > 0
        cache.reset()
        assert cache.hit_curve([64]).num_blocks == 0


def test_without_a_ghost_the_message_says_what_to_set(tmp_path: Path) -> None:
    with (
        Cache.open(MODEL, replace(config(tmp_path, host=64, disk=0), ghost_sample_rate=0.0)) as cache,
        pytest.raises(ValueError, match="ghost_sample_rate is 0"),
    ):
        cache.hit_curve()


def test_each_tier_is_told_what_it_serves_and_would_serve(tmp_path: Path) -> None:
    settings = replace(config(tmp_path, host=48, disk=96), ghost_sample_rate=1.0)
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        rng = np.random.default_rng(5)
        for seed in rng.zipf(1.3, 1500) % 64:
            sequence = cache.sequence(tokens(4, seed=int(seed)))
            lookup = cache.lookup(sequence)
            if lookup.num_blocks:
                assert cache.load(lookup, engine.blocks(0, lookup.num_blocks)).wait(10).ok
            cache.store(sequence, engine.fill(sequence)).wait(10)
        status = cache.stats()
        assert status.hit_curve is not None
        host, disk = status.hit_curve.tiers
        at = host.factors.index(1.0)
        served = {tier: count / status.activity.lookup_blocks for tier, count in status.activity.hit_blocks.items()}
        assert (host.tier, disk.tier) == ("host", "disk")
        assert host.shares[at] == pytest.approx(served["host"], abs=0.03)
        assert disk.shares[at] == pytest.approx(served["disk"], abs=0.03)
        assert disk.shares[0] == 0, "half of the disk is no more than the host tier holds, and holds what that holds"
        everything = status.hit_curve.hit_rates[-1]
        assert host.shares[-1] == pytest.approx(everything)
        assert host.shares[at] + disk.shares[-1] == pytest.approx(everything)


def test_a_disk_that_holds_what_leaves_the_host_tier_reaches_behind_it(tmp_path: Path) -> None:
    settings = replace(config(tmp_path, host=16, disk=16), ghost_sample_rate=1.0, ssd_admission="on_evict")
    with Cache.open(MODEL, settings) as cache:
        for _ in range(2):
            for seed in range(3):
                sequence = cache.sequence(tokens(8, seed=seed))
                sequence.parent_key(8)
                cache.lookup(sequence).release()
        status = cache.stats().hit_curve
        assert status is not None
        host, disk = status.tiers
        assert host.shares == pytest.approx((0, 0, 0.5, 0.5, 0.5))  # 24 blocks lie between two uses
        assert disk.shares == pytest.approx((0.5, 0.5, 0.5, 0.5, 0.5))
