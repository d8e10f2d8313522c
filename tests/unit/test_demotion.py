"""What leaves the host tier goes to disk first: demotions in the control half, and through a cache with real tiers."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.control_samples import BLOCK_BYTES, DISK, HOST, Bench, sequence
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, TierName
from tiercel.cache.assembly import assemble
from tiercel.control import Admission, Operation
from tiercel.plan import OperationKind
from tiercel.tiers.base import BlockStatus


def bench(**settings: object) -> Bench:
    """A host tier that is relieved above 30 of its 40 blocks, and of which demotions hold at most 5."""
    values = {"host": 40, "disk": 400, "ssd_admission": Admission.ON_EVICT, "evict_start_threshold": 0.75, **settings}
    return Bench(**values)  # type: ignore[arg-type]


def demotions(made: Bench) -> list[Operation]:
    """Begin all demotions that may be begun now."""
    found: list[Operation] = []
    while operation := made.control.relief.begin_demotion(1000 + len(found), made.now_s, 1.0):
        found.append(operation)
    return found


def end(made: Bench, operation: Operation, status: BlockStatus = BlockStatus.OK) -> None:
    made.finish(operation, status)
    made.control.relief.end(operation, made.now_s)


def relieve(made: Bench) -> None:
    """Demote and evict until nothing has to leave."""
    while True:
        made.control.relief.evict(made.now_s)
        found = demotions(made)
        for operation in found:
            end(made, operation)
        if not found and not made.control.relief.evict_undemoted(made.now_s)[0]:
            return


def test_nothing_goes_to_disk_before_the_host_tier_is_fuller_than_its_watermark() -> None:
    made = bench()
    for seed in range(3):
        made.store(sequence(10, seed=seed))
    assert demotions(made) == []
    assert (made.num_ready(HOST), made.num_ready(DISK)) == (30, 0)


def test_whatever_leaves_the_host_tier_lies_on_disk() -> None:
    made = bench()
    prompts = [sequence(5 + seed % 4, seed=seed) for seed in range(20)]
    for prompt in prompts:
        assert made.store(prompt).refusals == ()
        relieve(made)
        assert made.num_ready(HOST) <= 30
    for prompt in prompts:
        assert made.look_up(prompt) == prompt.num_blocks
    made.check()


def test_a_demotion_brings_ancestors_along_and_names_them_for_the_journal() -> None:
    made = bench()
    made.store(sequence(36, seed=1))
    (operation,) = demotions(made)
    (move,) = operation.plan.moves
    assert operation.plan.kind is OperationKind.DEMOTE
    assert (move.source, move.target, move.num_blocks) == (HOST, DISK, 5)
    assert move.keys == sequence(36, seed=1).keys(0, 5).tobytes()
    end(made, operation)
    assert made.num_held(DISK, sequence(36, seed=1)) == 5
    relieve(made)
    assert made.num_held(DISK, sequence(36, seed=1)) == 36
    made.check()


def test_bytes_under_way_are_bounded_and_nothing_leaves_before_they_arrived() -> None:
    made = bench(demotion_bytes_max=3 * BLOCK_BYTES)
    made.store(sequence(36, seed=1))
    found = demotions(made)
    assert sum(operation.plan.num_blocks for operation in found) == 3
    assert made.control.relief.evict_undemoted(made.now_s) == ((), None)
    for operation in found:
        end(made, operation)
    relieve(made)
    assert (made.num_ready(HOST), made.num_ready(DISK)) == (30, 36)
    made.check()


def test_a_demotion_that_fails_leaves_its_blocks_in_the_host_tier_and_is_not_tried_again_at_once() -> None:
    made = bench()
    made.store(sequence(36, seed=1))
    (operation,) = demotions(made)
    end(made, operation, BlockStatus.IO_ERROR)
    assert demotions(made) == []
    assert made.control.relief.evict_undemoted(made.now_s) == ((), None)
    assert (made.num_ready(HOST), made.num_ready(DISK)) == (36, 0)
    made.now_s += 10
    relieve(made)
    assert (made.num_ready(HOST), made.num_ready(DISK)) == (30, 36)
    made.check()


def test_a_store_that_finds_the_host_tier_full_evicts_and_that_is_named() -> None:
    made = bench()
    made.store(sequence(40, seed=1))
    assert made.store(sequence(10, seed=2)).refusals == ("demotion",)
    assert made.num_held(HOST, sequence(10, seed=2)) == 10


def test_over_budget_blocks_leave_without_a_demotion_and_that_is_named() -> None:
    made = bench(ssd_write_budget_per_day=24 * 4 * BLOCK_BYTES)
    made.store(sequence(40, seed=1))
    for operation in demotions(made):
        end(made, operation)
    assert made.num_ready(DISK) == 4
    frees, refusal = made.control.relief.evict_undemoted(made.now_s)
    assert (sum(len(free.slots) // 4 for free in frees), refusal) == (10, "budget")


class Slow:
    """A disk tier whose writes take time."""

    def __init__(self, inner: object, seconds: float) -> None:
        self._inner, self._seconds = inner, seconds

    def write(self, *args: object) -> object:
        time.sleep(self._seconds)
        return self._inner.write(*args)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    settings = config(tmp_path, host=64, disk=400, ssd_admission="on_evict", evict_start_threshold=0.7, evict_ratio=0.1)
    with Cache.open(MODEL, settings) as opened:
        yield opened


def settle(cache: Cache) -> None:
    """Wait until nothing runs and no tier is too full."""
    deadline = time.monotonic() + 20
    while cache.stats().tickets["running"] or cache._assembly.control.relief.is_due():
        assert time.monotonic() < deadline, "the host tier is not relieved"
        time.sleep(0.005)


def test_what_left_memory_comes_back_from_disk_byte_for_byte(cache: Cache) -> None:
    engine = SmallEngine(cache.geometry)
    prompts = [cache.sequence(tokens(10, seed=seed)) for seed in range(20)]
    for prompt in prompts:
        assert cache.store(prompt, engine.fill(prompt)).wait(10).blocks_by_tier == {TierName.HOST: 10}
        settle(cache)
    engine.poison()
    for prompt in prompts:
        assert cache.load(prompt, engine.blocks(0, 10)).wait(10).num_blocks_ok == 10
        engine.check(prompt, 10)
        settle(cache)
    assert "demotion" not in cache.stats().activity.throttled


def test_a_watermark_without_room_ahead_of_need_is_lowered_and_noted(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=400, ssd_admission="on_evict")) as cache:
        assert any("0.95" in note for note in cache.stats().notes)
        engine = SmallEngine(cache.geometry)
        for seed in range(10):
            prompt = cache.sequence(tokens(10, seed=seed))
            assert cache.store(prompt, engine.fill(prompt)).wait(10).ok
        assert cache.stats().activity.throttled["demotion"] > 0, "ten blocks do not fit into the room ahead of need"


def test_stores_resets_and_close_race_demotions(tmp_path: Path) -> None:
    assembly = assemble(MODEL, config(tmp_path, host=64, disk=400, ssd_admission="on_evict"))
    slow: object = Slow(assembly.tiers[TierName.DISK], 0.01)
    assembly.tiers[TierName.DISK] = slow  # type: ignore[assignment]
    cache = Cache(assembly)
    engine = SmallEngine(cache.geometry)
    for turn in range(30):
        prompt = cache.sequence(tokens(10, seed=turn))
        cache.store(prompt, engine.fill(prompt, at=10 * (turn % 20))).wait_source(10)
        if turn % 10 == 9:
            cache.reset()
            assert [tier.num_ready for tier in cache.stats().tiers] == [0, 0]
    cache.close()
    cache._assembly.control.index.check()
    for tier in assembly.control.tiers:
        stats = assembly.control.stats(tier)
        assert (stats.num_pinned, stats.num_writing) == (0, 0)
    with Cache.open(MODEL, config(tmp_path, host=64, disk=400)) as again:
        fresh = SmallEngine(again.geometry)
        for turn in range(30):
            prompt = again.sequence(tokens(10, seed=turn))
            loaded = again.load(prompt, fresh.blocks(0, 10)).wait(10)
            fresh.check(prompt, loaded.num_blocks_ok)


def test_a_store_that_does_not_write_to_disk_is_not_throttled_by_a_queue_of_demotions(tmp_path: Path) -> None:
    settings = config(
        tmp_path, host=64, disk=400, ssd_admission="on_evict", evict_start_threshold=0.5, transfer_queue_depth_max=8
    )
    assembly = assemble(MODEL, settings)
    slow: object = Slow(assembly.tiers[TierName.DISK], 0.5)
    assembly.tiers[TierName.DISK] = slow  # type: ignore[assignment]
    with Cache(assembly) as cache:
        engine = SmallEngine(cache.geometry)
        first, second = (cache.sequence(tokens(num_blocks, seed=num_blocks)) for num_blocks in (40, 4))
        cache.store(first, engine.fill(first)).wait(10)
        deadline = time.monotonic() + 10
        while not cache.stats().queue_depths["disk-store"]:
            assert time.monotonic() < deadline, "no demotion begins"
            time.sleep(0.001)
        assert cache.store(second, engine.fill(second, at=50)).wait(10).ok
        assert not any(cache.stats().activity.throttled.values())


def test_a_demotion_waits_until_a_quarter_of_what_may_be_under_way_is_free() -> None:
    made = bench(host=400, disk=4000)  # 50 blocks may be under way
    for seed in range(127):
        made.store(sequence(3, seed=seed))
    first = demotions(made)
    under_way = sum(operation.plan.num_blocks for operation in first)
    assert under_way > 50 - 50 // 4
    ended = 0
    for operation in first:
        if 50 - (under_way - ended) >= 50 // 4:
            break
        assert demotions(made) == []
        end(made, operation)
        ended += operation.plan.num_blocks
    assert demotions(made) != []
