"""Who follows a cache's changes knows at any moment which blocks each tier has."""

import random
from pathlib import Path

import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, TierName
from tiercel.control import ChangeKind
from tiercel.hashing import KEY_BYTES

TIERS = (TierName.HOST, TierName.DISK)
Held = dict[TierName, set[bytes]]


def follow(cache: Cache, held: Held) -> None:
    """Take in the cache's changes. What is told must fit what was told before."""
    changes = cache.block_changes()
    assert changes is not None
    for kind, tier, key in changes:
        if kind is ChangeKind.ALL_GONE:
            for blocks in held.values():
                blocks.clear()
        elif kind is ChangeKind.READY:
            assert key not in held[tier], "told twice that a block can be read"
            held[tier].add(key)
        else:
            held[tier].remove(key)


def listed(cache: Cache) -> Held:
    return {tier: {key.tobytes() for key in cache.block_keys(tier)} for tier in TIERS}


@pytest.mark.parametrize("admission", ["through", "on_second_hit", "on_evict"])
def test_the_changes_of_a_full_cache_add_up_to_what_it_holds(tmp_path: Path, admission: str) -> None:
    generator = random.Random(chosen_seed())
    held: Held = {tier: set() for tier in TIERS}
    settings = config(tmp_path, host=40, disk=90, ssd_admission=admission, evict_start_threshold=0.8)
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        cache.watch_blocks(100_000)
        for number in range(120):
            prompt = cache.sequence(tokens(8, generator.randrange(6)))
            prompt.extend(tokens(generator.randrange(1, 8), generator.randrange(6)))
            cache.load(prompt, engine.blocks(0, prompt.num_blocks)).wait()
            cache.store(prompt, engine.fill(prompt)).wait()
            if number == 60:
                cache.reset()
            follow(cache, held)
        cache.close()  # upkeep has ended, so nothing moves between the two
        follow(cache, held)
        assert held == listed(cache)
        assert held[TierName.HOST]
        assert held[TierName.DISK]


def test_more_changes_than_there_is_room_for_are_told_as_that_and_then_forgotten() -> None:
    with Cache.open(MODEL, config(host=64)) as cache:
        engine = SmallEngine(cache.geometry)
        cache.watch_blocks(5)
        first, second = cache.sequence(tokens(6, 1)), cache.sequence(tokens(5, 2))
        cache.store(first, engine.fill(first)).wait()
        assert cache.block_changes() is None
        cache.store(second, engine.fill(second)).wait()
        changes = cache.block_changes()
        assert changes is not None
        assert [change.key for change in changes] == [key.tobytes() for key in second.keys()]
        cache.watch_blocks(0)
        third = cache.sequence(tokens(3, 3))
        cache.store(third, engine.fill(third)).wait()
        assert cache.block_changes() == ()


def test_a_tier_that_is_not_there_holds_nothing() -> None:
    with Cache.open(MODEL, config(host=8)) as cache:
        assert cache.block_keys(TierName.DISK).shape == (0, KEY_BYTES)
