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


def test_the_default_capacities_reach_to_four_times_the_cache(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=0)) as cache:
        curve = cache.hit_curve()
        assert (curve.capacities_blocks[0], curve.capacities_blocks[-1]) == (1, 256)
        assert set(curve.hit_rates) == {0.0}
        with pytest.raises(ValueError, match="257 is above"):
            cache.hit_curve([257])
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
