"""What the facade promises, over real tiers."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.node_client import until
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import BlockStatus, Cache, Lookup, TierName
from tiercel.cache import Outcome
from tiercel.errors import CacheClosedError, DirectoryLockedError, StaleTicketError, ThrottledError
from tiercel.layout import EngineBlocks
from tiercel.telemetry.snapshot import TierStatus


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as opened:
        yield opened
        assert_nothing_is_held(opened)


@pytest.fixture
def engine(cache: Cache) -> SmallEngine:
    return SmallEngine(cache.geometry)


def assert_nothing_is_held(cache: Cache) -> None:
    gc.collect()
    until(lambda: all(tier.num_pinned == 0 for tier in cache.stats().tiers))  # a node answers no release
    for tier in cache.stats().tiers:
        assert tier.num_pinned == 0, f"{tier.name}: pins were leaked"
        assert tier.num_writing == 0, f"{tier.name}: reservations were leaked"
        assert tier.num_free + tier.num_ready == tier.num_slots, f"{tier.name}: slots were leaked"


def tier_of(cache: Cache, name: str) -> TierStatus:
    return next(tier for tier in cache.stats().tiers if tier.name == name)


def test_what_was_stored_is_loaded_byte_for_byte(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(10, seed=1))
    stored = cache.store(sequence, engine.fill(sequence)).wait(10)
    assert stored.ok
    assert stored.blocks_by_tier == {TierName.HOST: 10, TierName.DISK: 10}
    engine.poison()
    loaded = cache.load(cache.sequence(tokens(10, seed=1)), engine.blocks(100, 110)).wait(10)
    assert loaded.num_blocks_ok == 10
    assert loaded.blocks_by_tier == {TierName.HOST: 10}
    assert loaded.bytes_by_tier == {TierName.HOST: 10 * cache.geometry.block_bytes}
    engine.check(sequence, 10, at=100)


def test_a_prompt_that_differs_in_one_token_hits_only_the_blocks_before_it(cache: Cache, engine: SmallEngine) -> None:
    prompt = tokens(8, seed=2)
    sequence = cache.sequence(prompt)
    cache.store(sequence, engine.fill(sequence)).wait(10)
    prompt[5 * 16 + 3] += 1
    with cache.lookup(cache.sequence(prompt)) as lookup:
        assert lookup.num_blocks == 5


def test_namespaces_share_nothing(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(4, seed=3), namespace="tenant a")
    cache.store(sequence, engine.fill(sequence)).wait(10)
    assert cache.lookup(cache.sequence(tokens(4, seed=3), namespace="tenant b")).num_blocks == 0
    assert cache.lookup(cache.sequence(tokens(4, seed=3))).num_blocks == 0
    assert cache.lookup(cache.sequence(tokens(4, seed=3), namespace="tenant a")).num_blocks == 4


def test_a_growing_sequence_stores_only_its_new_blocks(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(3, seed=4))
    cache.store(sequence, engine.fill(sequence)).wait(10)
    sequence.extend(tokens(2, seed=5, extra=7))
    assert cache.store(sequence, engine.fill(sequence)).wait(10).blocks_by_tier[TierName.HOST] == 2
    sequence.extend(tokens(1, seed=6))
    ticket = cache.store(sequence, engine.fill(sequence, start=5, at=5), first_block=5)
    assert ticket.wait(10).blocks_by_tier[TierName.HOST] == 1
    engine.poison()
    assert cache.load(sequence, engine.blocks(0, 6)).wait(10).num_blocks_ok == 6
    engine.check(sequence, 6)


def test_storing_behind_a_gap_is_reported_as_missing(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(6, seed=7))
    result = cache.store(sequence, engine.fill(sequence, start=3), first_block=3).wait(10)
    assert result.num_blocks_ok == 0
    assert set(result.statuses) == {BlockStatus.MISSING}


def test_storing_twice_at_once_copies_once(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(40, seed=8))
    source = engine.fill(sequence)
    tickets = [cache.store(cache.sequence(tokens(40, seed=8)), source) for _ in range(5)]
    results = [ticket.wait(10) for ticket in tickets]
    assert all(result.ok for result in results)
    assert sum(result.blocks_by_tier.get(TierName.HOST, 0) for result in results) == 40


def test_blocks_evicted_from_memory_come_back_from_disk(cache: Cache, engine: SmallEngine) -> None:
    sequences = [cache.sequence(tokens(40, seed=seed)) for seed in range(10, 14)]
    for sequence in sequences:
        assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
    engine.poison()
    result = cache.load(sequences[0], engine.blocks(0, 40)).wait(10)
    assert result.num_blocks_ok == 40
    assert result.blocks_by_tier[TierName.DISK] >= 24
    engine.check(sequences[0], 40)
    assert cache.load(sequences[0], engine.blocks(0, 40)).wait(10).blocks_by_tier == {TierName.HOST: 40}


def test_a_hit_larger_than_the_host_tier_goes_past_it(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=8, disk=256)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(50, seed=20))
        assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
        engine.poison()
        assert cache.load(sequence, engine.blocks(0, 50)).wait(10).num_blocks_ok == 50
        engine.check(sequence, 50)
        assert_nothing_is_held(cache)


def test_a_cache_of_disk_alone_works(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=0, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(20, seed=21))
        assert cache.store(sequence, engine.fill(sequence)).wait(10).blocks_by_tier == {TierName.DISK: 20}
        engine.poison()
        assert cache.load(sequence, engine.blocks(0, 20)).wait(10).num_blocks_ok == 20
        engine.check(sequence, 20)


def test_a_cache_of_memory_alone_works_and_evicts(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(host=16)) as cache:
        engine = SmallEngine(cache.geometry)
        sequences = [cache.sequence(tokens(10, seed=seed)) for seed in range(5)]
        for sequence in sequences:
            assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
        assert tier_of(cache, "host").num_ready == 16
        assert tier_of(cache, "host").evicted == 34
        assert cache.load(sequences[-1], engine.blocks(100, 110)).wait(10).num_blocks_ok == 10
        engine.check(sequences[-1], 10, at=100)


def test_prefetch_brings_blocks_from_disk_to_memory(cache: Cache, engine: SmallEngine) -> None:
    first = cache.sequence(tokens(30, seed=30))
    cache.store(first, engine.fill(first)).wait(10)
    for seed in (31, 32):
        other = cache.sequence(tokens(32, seed=seed))
        cache.store(other, engine.fill(other)).wait(10)
    assert cache.lookup(first).segments[-1].tier is TierName.DISK
    assert cache.prefetch(first).wait(10).ok
    with cache.lookup(first) as lookup:
        assert [segment.tier for segment in lookup.segments] == [TierName.HOST]
    engine.poison()
    assert cache.load(first, engine.blocks(0, 30)).wait(10).blocks_by_tier == {TierName.HOST: 30}
    engine.check(first, 30)


def test_a_lookup_pins_what_it_found_until_it_is_released(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(host=16)) as cache:
        engine = SmallEngine(cache.geometry)
        kept = cache.sequence(tokens(8, seed=40))
        cache.store(kept, engine.fill(kept)).wait(10)
        lookup = cache.lookup(kept)
        for seed in range(41, 45):
            other = cache.sequence(tokens(12, seed=seed))
            result = cache.store(other, engine.fill(other, at=100)).wait(10)
            assert result.num_blocks_ok == 8
            assert set(result.statuses[8:]) == {BlockStatus.NO_SPACE}
        engine.poison()
        assert cache.load(lookup, engine.blocks(0, 8)).wait(10).ok
        engine.check(kept, 8)
        assert_nothing_is_held(cache)


def test_a_forgotten_lookup_gives_its_pins_back(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(8, seed=50))
    cache.store(sequence, engine.fill(sequence)).wait(10)
    lookup: Lookup | None = cache.lookup(sequence)
    assert tier_of(cache, "host").num_pinned == 8
    del lookup
    gc.collect()
    assert until(lambda: tier_of(cache, "host").num_pinned == 0)


def test_a_lookup_is_launched_once(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(4, seed=51))
    cache.store(sequence, engine.fill(sequence)).wait(10)
    lookup = cache.lookup(sequence)
    cache.load(lookup, engine.blocks(0, 4)).wait(10)
    with pytest.raises(StaleTicketError, match="launched or released before"):
        cache.load(lookup, engine.blocks(0, 4))


def test_several_loads_are_launched_together(cache: Cache, engine: SmallEngine) -> None:
    sequences = [cache.sequence(tokens(5, seed=seed)) for seed in (60, 61, 62)]
    for sequence in sequences:
        cache.store(sequence, engine.fill(sequence)).wait(10)
    engine.poison()
    batch = [(cache.lookup(s), engine.blocks(10 * i, 10 * i + 5)) for i, s in enumerate(sequences)]
    for i, ticket in enumerate(cache.launch(batch)):
        assert ticket.wait(10).num_blocks_ok == 5
        engine.check(sequences[i], 5, at=10 * i)


def test_limit_tokens_leaves_the_last_token_to_the_engine(cache: Cache, engine: SmallEngine) -> None:
    prompt = tokens(4, seed=63)
    sequence = cache.sequence(prompt)
    cache.store(sequence, engine.fill(sequence)).wait(10)
    assert cache.lookup(sequence, limit_tokens=len(prompt) - 1).num_blocks == 3
    assert cache.lookup(sequence, limit_tokens=0).num_blocks == 0


def test_a_target_that_is_too_small_is_refused_and_the_lookup_kept(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(4, seed=64))
    cache.store(sequence, engine.fill(sequence)).wait(10)
    lookup = cache.lookup(sequence)
    with pytest.raises(ValueError, match="4 blocks are to be loaded into 3"):
        cache.load(lookup, engine.blocks(0, 3))
    assert cache.load(lookup, engine.blocks(0, 4)).wait(10).ok


def test_reset_forgets_everything_also_after_a_restart(tmp_path: Path) -> None:
    sequence_tokens = tokens(8, seed=70)
    with Cache.open(MODEL, config(tmp_path, host=16, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(sequence_tokens)
        cache.store(sequence, engine.fill(sequence)).wait(10)
        before = cache.lookup(sequence)
        cache.reset()
        assert cache.lookup(sequence).num_blocks == 0
        with pytest.raises(StaleTicketError, match="reset"):
            cache.load(before, engine.blocks(0, 8))
        before.release()
        assert_nothing_is_held(cache)
    with Cache.open(MODEL, config(tmp_path, host=16, disk=64)) as cache:
        assert cache.lookup(cache.sequence(sequence_tokens)).num_blocks == 0


def test_the_disk_tier_is_warm_after_a_restart(tmp_path: Path) -> None:
    sequence_tokens = [tokens(20, seed=seed) for seed in (80, 81)]
    with Cache.open(MODEL, config(tmp_path, host=16, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        for each in sequence_tokens:
            sequence = cache.sequence(each)
            assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
    with Cache.open(MODEL, config(tmp_path, host=64, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        for each in sequence_tokens:
            sequence = cache.sequence(each)
            result = cache.load(sequence, engine.blocks(0, 20)).wait(10)
            assert result.blocks_by_tier == {TierName.DISK: 20}
            engine.check(sequence, 20)
        assert_nothing_is_held(cache)


def test_a_second_instance_on_the_directory_is_refused(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(DirectoryLockedError, match="in use by process"):
        Cache.open(MODEL, config(tmp_path, host=16, disk=256))


class HeldSource:
    """Engine blocks whose copy waits for a gate."""

    addresses = None

    def __init__(self, blocks: EngineBlocks, gate: threading.Event) -> None:
        self.blocks, self.gate = blocks, gate
        self.memory, self.num_blocks = blocks.memory, blocks.num_blocks

    def gather(self, targets: NDArray[np.uint64]) -> None:
        self.gate.wait(10)
        self.blocks.gather(targets)

    def slice(self, start: int, stop: int) -> "HeldSource":
        return HeldSource(self.blocks.slice(start, stop), self.gate)


def test_a_full_queue_is_throttled_and_works_again_when_it_has_room(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(host=64, transfer_queue_depth_max=8)) as cache:
        engine, gate = SmallEngine(cache.geometry), threading.Event()
        sequences = [cache.sequence(tokens(3, seed=seed)) for seed in range(9)]
        sources = [engine.fill(sequence, at=3 * i) for i, sequence in enumerate(sequences)]
        held = [
            cache.store(sequence, HeldSource(source, gate))  # type: ignore[arg-type]
            for sequence, source in zip(sequences[:8], sources[:8], strict=True)
        ]
        with pytest.raises(ThrottledError, match="transfer_queue_depth_max"):
            cache.store(sequences[8], sources[8])
        assert cache.stats().activity.throttled == {"host-load": 0, "host-store": 1}
        gate.set()
        assert all(ticket.wait(10).ok for ticket in held)
        assert cache.store(sequences[8], sources[8]).wait(10).ok
        assert_nothing_is_held(cache)


def test_a_closed_cache_says_so(tmp_path: Path) -> None:
    cache = Cache.open(MODEL, config(host=16))
    engine = SmallEngine(cache.geometry)
    sequence = cache.sequence(tokens(2, seed=90))
    cache.close()
    cache.close()
    with pytest.raises(CacheClosedError):
        cache.lookup(sequence)
    with pytest.raises(CacheClosedError):
        cache.store(sequence, engine.blocks(0, 2))
    with pytest.raises(CacheClosedError):
        cache.reset()


def test_everything_works_from_asyncio(tmp_path: Path) -> None:
    async def main() -> None:
        async with Cache.open(MODEL, config(tmp_path, host=64, disk=64)) as cache:
            engine = SmallEngine(cache.geometry)
            sequences = [cache.sequence(tokens(6, seed=seed)) for seed in range(100, 105)]
            stores = [cache.store(s, engine.fill(s, at=6 * i)) for i, s in enumerate(sequences)]
            assert all(result.ok for result in [await store for store in stores])
            engine.poison()
            loads = [cache.load(s, engine.blocks(6 * i, 6 * i + 6)) for i, s in enumerate(sequences)]
            results = await asyncio.gather(*(asyncio.wait_for(load, 10) for load in loads))
            assert all(result.ok for result in results)
            for i, sequence in enumerate(sequences):
                engine.check(sequence, 6, at=6 * i)

    asyncio.run(main())


def test_an_async_block_whose_loop_a_signal_ended_closes_the_cache_all_the_same(tmp_path: Path) -> None:
    cache = Cache.open(MODEL, config(tmp_path, host=64, disk=64))

    async def main() -> None:
        async with cache:
            await asyncio.sleep(0)

    coroutine = main()
    coroutine.send(None)  # begun outside of any loop, as by a runner that is interrupted
    coroutine.close()
    with pytest.raises(CacheClosedError):
        cache.reset()


def test_load_policy_never_loads_nothing_and_auto_follows_the_measured_costs(tmp_path: Path) -> None:
    for policy, prefill_s, expected in (("never", 1.0, 0), ("auto", 10.0, 8), ("auto", 1e-9, 0)):
        with Cache.open(MODEL, config(host=16, load_policy=policy)) as cache:
            engine = SmallEngine(cache.geometry)
            sequence = cache.sequence(tokens(8, seed=110))
            cache.store(sequence, engine.fill(sequence)).wait(10)
            for _ in range(20):
                cache.observe_prefill(cached_tokens=0, computed_tokens=128, seconds=prefill_s)
            with cache.lookup(sequence) as lookup:
                assert lookup.matched_blocks == 8
                assert lookup.num_blocks == expected, (policy, prefill_s)


def test_cancelling_at_any_moment_leaves_nothing_behind(cache: Cache, engine: SmallEngine) -> None:
    rng = np.random.default_rng(7)
    for seed in range(200, 240):
        sequence = cache.sequence(tokens(30, seed=seed % 7 + 200))
        ticket = (
            cache.store(sequence, engine.fill(sequence)) if seed % 2 else cache.load(sequence, engine.blocks(0, 30))
        )
        if rng.random() < 0.7:
            ticket.cancel()
        result = ticket.wait(10)
        assert result.outcome in (Outcome.DONE, Outcome.CANCELLED)
        if result.kind.value == "load":
            engine.check(sequence, result.num_blocks_ok)


def test_what_became_recompute_is_counted_by_reason(cache: Cache) -> None:
    cache.observe_recompute("load: IO_ERROR")
    cache.observe_recompute("load: IO_ERROR")
    assert cache.stats().activity.recompute == {"load: IO_ERROR": 2}


def test_an_empty_sequence_is_no_trouble(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence()
    assert cache.lookup(sequence).num_blocks == 0
    assert cache.store(sequence, engine.blocks(0, 0)).wait(1).ok
    assert cache.load(sequence, engine.blocks(0, 0)).wait(1).num_blocks_ok == 0
    assert cache.prefetch(sequence).wait(1).ok
