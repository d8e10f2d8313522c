"""Lookups of prompts whose beginning the engine holds already: only what lies behind is loaded, counted and weighed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.node_client import until
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import BlockStatus, Cache, TierName
from tiercel.costs import PrefillCurve, TransferCost
from tiercel.plan import Segment, choose_split, cut_segments

BLOCK = 16


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as opened:
        yield opened
        assert until(lambda: all(tier.num_pinned == 0 for tier in opened.stats().tiers))  # a node answers no release


def stored(cache: Cache, engine: SmallEngine, num_blocks: int, seed: int) -> None:
    sequence = cache.sequence(tokens(num_blocks, seed=seed))
    assert cache.store(sequence, engine.fill(sequence)).wait(10).ok


def test_only_the_blocks_behind_the_engines_are_loaded(cache: Cache) -> None:
    engine = SmallEngine(cache.geometry)
    stored(cache, engine, 10, seed=1)
    engine.poison()
    sequence = cache.sequence(tokens(10, seed=1))
    lookup = cache.lookup(sequence, engine_tokens=4 * BLOCK + 5)
    assert (lookup.first_block, lookup.num_blocks, lookup.matched_blocks) == (4, 6, 10)
    result = cache.load(lookup, engine.blocks(104, 110)).wait(10)
    assert result.num_blocks == result.num_blocks_ok == 6
    assert result.blocks_by_tier == {TierName.HOST: 6}
    engine.check(sequence, 6, at=104, first=4)


def test_nothing_is_loaded_when_the_engine_holds_as_much(cache: Cache) -> None:
    engine = SmallEngine(cache.geometry)
    stored(cache, engine, 6, seed=2)
    for engine_tokens in (6 * BLOCK, 9 * BLOCK):
        with cache.lookup(cache.sequence(tokens(10, seed=2)), engine_tokens=engine_tokens) as lookup:
            assert (lookup.num_blocks, lookup.segments) == (0, ())


def test_blocks_behind_the_engines_are_prefetched_alone(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        stored(cache, SmallEngine(cache.geometry), 12, seed=3)
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        sequence = cache.sequence(tokens(12, seed=3))
        # Blocks cannot be kept in the host tier without those before them, so these are loaded past it.
        result = cache.prefetch(cache.lookup(sequence, engine_tokens=5 * BLOCK)).wait(10)
        assert set(result.statuses.tolist()) <= {int(BlockStatus.OK), int(BlockStatus.NO_SPACE)}
        engine = SmallEngine(cache.geometry)
        loaded = cache.load(cache.lookup(sequence, engine_tokens=5 * BLOCK), engine.blocks(20, 27)).wait(10)
        assert loaded.ok
        engine.check(sequence, 7, at=20, first=5)


def test_a_negative_number_of_the_engines_tokens_is_refused(cache: Cache) -> None:
    with pytest.raises(ValueError, match="engine_tokens = -1"):
        cache.lookup(cache.sequence(tokens(2, seed=4)), engine_tokens=-1)


def test_what_the_engine_holds_costs_and_saves_nothing() -> None:
    segments = (Segment(TierName.HOST, 0, 8), Segment(TierName.DISK, 8, 8))
    behind = cut_segments(segments, 16, first_block=10)
    assert behind == (Segment(TierName.DISK, 10, 6),)
    curve = PrefillCurve(0.0, 1e-3, 0.0)
    for seconds, expected in ((0.05, 16), (0.2, 10)):
        cost = TransferCost(seconds, np.inf)
        chosen = choose_split(
            behind, num_tokens=16 * BLOCK, tokens_per_block=BLOCK, block_bytes=1, costs=[cost], prefill=curve
        )
        assert chosen == expected
