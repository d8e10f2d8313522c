"""One cache, an engine's memory in several ranks: what was stored comes back, however the heads are split."""

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.faults.test_cache_faults import assert_nothing_is_held
from tests.helpers.rank_engine import MLA_MODEL, MODEL, WAIT_S, Ranks, RankShard, open_cache, until
from tests.helpers.small_engine import TOKENS_PER_BLOCK, SmallEngine, tokens
from tiercel import (
    BlockGeometry,
    BlockStatus,
    ConfigError,
    DeadlineError,
    DeviceError,
    Outcome,
    RankAgent,
    RankGroup,
    RankTimeouts,
    TierName,
)

GEOMETRY = BlockGeometry.from_model(MODEL, tokens_per_block=TOKENS_PER_BLOCK)


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
@pytest.mark.parametrize(("host", "disk"), [(64, 0), (8, 128), (0, 128)])
def test_what_two_ranks_stored_any_number_of_ranks_loads(tmp_path: Path, num_ranks: int, host: int, disk: int) -> None:
    with open_cache(tmp_path / "cache", host=host, disk=disk) as cache:
        sequence = cache.sequence(tokens(40, seed=1))
        keys = sequence.keys(0)
        with Ranks(cache, tmp_path / "two", 2) as two:
            two.fill(keys)
            stored = cache.store(sequence, two.group.blocks(range(40))).wait(WAIT_S)
            assert stored.num_blocks_ok == 40
            with Ranks(cache, tmp_path / "others", num_ranks) as others:
                loaded = cache.load(sequence, others.group.blocks(np.arange(50, 90))).wait(WAIT_S)
                assert loaded.num_blocks_ok == 40
                assert others.num_right(keys, at=50) == 40
                assert all(shard.is_poisoned(0, 50) and shard.is_poisoned(90, 96) for shard in others.shards)
        assert_nothing_is_held(cache)


def test_what_ranks_stored_an_engine_in_this_process_loads_and_the_other_way_round(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=64) as cache, Ranks(cache, tmp_path / "ranks", 4) as ranks:
        engine = SmallEngine(cache.geometry)
        theirs, ours = cache.sequence(tokens(12, seed=2)), cache.sequence(tokens(12, seed=3))
        ranks.fill(theirs.keys(0))
        assert cache.store(theirs, ranks.group.blocks(range(12))).wait(WAIT_S).ok
        assert cache.store(ours, engine.fill(ours, at=20)).wait(WAIT_S).ok
        assert cache.load(theirs, engine.blocks(0, 12)).wait(WAIT_S).ok
        engine.check(theirs, 12)
        assert cache.load(ours, ranks.group.blocks(range(12, 24))).wait(WAIT_S).ok
        assert ranks.num_right(ours.keys(0), at=12) == 12


def test_of_mla_one_rank_stores_and_all_load(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", model=MLA_MODEL, host=64) as cache, Ranks(cache, tmp_path / "r", 3) as ranks:
        sequence = cache.sequence(tokens(10, seed=4))
        ranks.shards[0].fill(sequence.keys(0))  # the others hold poison, which would be seen
        assert cache.store(sequence, ranks.group.blocks(range(10))).wait(WAIT_S).ok
        assert not ranks.held[1].begun.acquire(blocking=False)
        ranks.poison()
        assert cache.load(sequence, ranks.group.blocks(range(10))).wait(WAIT_S).ok
        assert ranks.num_right(sequence.keys(0)) == 10


def test_a_copy_of_more_blocks_than_a_message_holds_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiercel.ranks.group.BLOCKS_MAX", 7)
    with open_cache(tmp_path / "cache", host=64) as cache, Ranks(cache, tmp_path / "ranks", 2) as ranks:
        sequence = cache.sequence(tokens(40, seed=5))
        ranks.fill(sequence.keys(0))
        assert cache.store(sequence, ranks.group.blocks(range(40))).wait(WAIT_S).ok
        ranks.poison()
        assert cache.load(sequence, ranks.group.blocks(range(40))).wait(WAIT_S).ok
        assert ranks.num_right(sequence.keys(0)) == 40


def test_nothing_of_a_step_is_touched_before_every_rank_has_marked_it(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=64) as cache, Ranks(cache, tmp_path / "ranks", 2) as ranks:
        sequence = cache.sequence(tokens(8, seed=6))
        ranks.shards[0].fill(sequence.keys(0))
        store = cache.store(sequence, ranks.group.blocks(range(8), after_step=5))
        ranks.agents[0].mark_step(5)
        ranks.agents[1].mark_step(4)
        assert ranks.held[0].begun.acquire(timeout=WAIT_S)
        assert not ranks.held[1].begun.acquire(timeout=0.2)
        assert not store.done
        ranks.shards[1].fill(sequence.keys(0))
        ranks.agents[1].mark_step(7)
        assert store.wait(WAIT_S).ok
        load = cache.load(sequence, ranks.group.blocks(range(20, 28), after_step=9))
        assert not ranks.held[0].begun.acquire(timeout=0.2)
        assert all(shard.is_poisoned(20, 28) for shard in ranks.shards)
        for agent in ranks.agents:
            agent.mark_step(9)
        assert load.wait(WAIT_S).ok
        assert ranks.num_right(sequence.keys(0), at=20) == 8


def test_a_copy_that_waits_for_its_step_lets_others_pass(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=64) as cache, Ranks(cache, tmp_path / "ranks", 2) as ranks:
        first, second = cache.sequence(tokens(8, seed=7)), cache.sequence(tokens(8, seed=8))
        ranks.fill(first.keys(0))
        assert cache.store(first, ranks.group.blocks(range(8))).wait(WAIT_S).ok
        store = cache.store(second, ranks.group.blocks(range(8), after_step=1))
        assert cache.load(first, ranks.group.blocks(range(8, 16))).wait(WAIT_S).ok
        assert not store.done
        for agent in ranks.agents:
            agent.mark_step(1)
        assert store.wait(WAIT_S).ok


def test_a_copy_that_a_fence_heard_of_first_is_made(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=64) as cache, Ranks(cache, tmp_path / "ranks", 2) as ranks:
        sequence = cache.sequence(tokens(8, seed=12))
        ranks.fill(sequence.keys(0))
        over = threading.Event()

        def engine() -> None:
            while not over.wait(0.0):
                for agent in ranks.agents:
                    agent.fence()

        thread = threading.Thread(target=engine)
        thread.start()
        try:
            assert cache.store(sequence, ranks.group.blocks(range(8))).wait(WAIT_S).ok
            for _ in range(100):
                assert cache.load(sequence, ranks.group.blocks(range(20, 28)), timeout_s=5).wait(WAIT_S).ok
        finally:
            over.set()
            thread.join()


def test_a_step_that_is_never_marked_costs_the_deadline_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=64) as cache, Ranks(cache, tmp_path / "ranks", 2) as ranks:
        sequence = cache.sequence(tokens(8, seed=9))
        ranks.fill(sequence.keys(0))
        ticket = cache.store(sequence, ranks.group.blocks(range(8), after_step=1), timeout_s=0.2)
        assert ticket.wait(WAIT_S).outcome is Outcome.DEADLINE
        assert until(lambda: cache.stats().tiers[0].num_writing == 0)
        assert_nothing_is_held(cache)
        assert cache.store(sequence, ranks.group.blocks(range(8))).wait(WAIT_S).ok


def test_an_agent_waits_for_a_step_no_longer_than_it_was_told_to(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", host=64) as cache, Ranks(cache, tmp_path / "r", 2, step_timeout_s=0.1) as ranks:
        sequence = cache.sequence(tokens(8, seed=10))
        result = cache.store(sequence, ranks.group.blocks(range(8), after_step=1)).wait(WAIT_S)
        assert result.outcome is Outcome.DONE
        assert result.statuses[0] == BlockStatus.IO_ERROR
        assert_nothing_is_held(cache)


def test_two_groups_use_one_cache_at_once(tmp_path: Path) -> None:
    with (
        open_cache(tmp_path / "cache", host=96, disk=256) as cache,
        Ranks(cache, tmp_path / "a", 2) as two,
        Ranks(cache, tmp_path / "b", 4) as four,
    ):

        def work(ranks: Ranks, seed: int, failures: list[str]) -> None:
            for turn in range(10):
                sequence = cache.sequence(tokens(16, seed=1000 * seed + turn))
                ranks.fill(sequence.keys(0))
                if not cache.store(sequence, ranks.group.blocks(range(16))).wait(WAIT_S).ok:
                    failures.append(f"store {turn}")
                ranks.poison()
                loaded = cache.load(sequence, ranks.group.blocks(range(16))).wait(WAIT_S).num_blocks_ok
                if loaded != 16 or ranks.num_right(sequence.keys(0)) != 16:
                    failures.append(f"load {turn}: {loaded}")

        failures: list[str] = []
        threads = [threading.Thread(target=work, args=(r, s, failures)) for s, r in enumerate((two, four), 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        assert_nothing_is_held(cache)


def test_ranks_may_start_before_the_cache_listens(tmp_path: Path) -> None:
    shards = [RankShard(GEOMETRY, heads) for heads in ((0, 2), (2, 4))]
    agents = [RankAgent(tmp_path / "ranks", rank, shard.memory) for rank, shard in enumerate(shards)]
    with pytest.raises(DeadlineError):
        agents[0].wait_ready(0.1)
    with (
        open_cache(tmp_path / "cache", host=16) as cache,
        RankGroup(cache.geometry, cache.shared_memory, num_ranks=2, directory=tmp_path / "ranks") as group,
    ):
        group.wait_ready(WAIT_S)
        agents[0].wait_ready(WAIT_S)
    assert all(agent.ended.wait(WAIT_S) for agent in agents)
    with pytest.raises(DeviceError, match="cache has ended"):
        agents[0].wait_ready(1)


def test_a_rank_that_finds_no_cache_gives_up_in_its_time_and_at_once_when_closed(tmp_path: Path) -> None:
    shard = RankShard(GEOMETRY, (0, 4))
    with RankAgent(tmp_path, 0, shard.memory, connect_timeout_s=0.1) as agent:
        assert agent.ended.wait(WAIT_S)
        with pytest.raises(DeadlineError, match="no cache listened"):
            agent.wait_ready(1)
    agent = RankAgent(tmp_path, 0, shard.memory, connect_timeout_s=60)
    agent.close()
    assert agent.ended.is_set()


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([(0, 2), (3, 4)], "nobody holds head 2"),
        ([(0, 2), (1, 4)], "several ranks hold different parts around head 1"),
        ([(0, 2), (0, 2)], "nobody holds head 2"),
    ],
)
def test_ranks_that_do_not_hold_each_head_are_refused_by_name(
    tmp_path: Path, heads: list[tuple[int, int]], message: str
) -> None:
    with (
        open_cache(tmp_path / "cache", host=16) as cache,
        RankGroup(cache.geometry, cache.shared_memory, num_ranks=2, directory=tmp_path / "ranks") as group,
    ):
        agents = [RankAgent(tmp_path / "ranks", r, RankShard(GEOMETRY, h).memory) for r, h in enumerate(heads)]
        with pytest.raises(ConfigError, match=message):
            group.wait_ready(WAIT_S)
        assert all(agent.ended.wait(WAIT_S) for agent in agents)
        with pytest.raises(DeviceError, match=message):
            group.blocks([0])


def test_a_rank_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    with (
        open_cache(tmp_path / "cache", host=16) as cache,
        RankGroup(cache.geometry, cache.shared_memory, num_ranks=1, directory=tmp_path / "ranks") as group,
    ):
        other = BlockGeometry.from_model(MLA_MODEL, tokens_per_block=TOKENS_PER_BLOCK)
        with RankAgent(tmp_path / "ranks", 0, RankShard(other, (0, 1)).memory) as agent:
            with pytest.raises(ConfigError, match="rank 0 has model_id = 'latent', the cache 'ranks'"):
                group.wait_ready(WAIT_S)
            with pytest.raises(ConfigError, match="refused rank 0"):
                agent.wait_ready(WAIT_S)


def test_blocks_are_checked_as_those_of_this_process_are(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=64) as cache:
        with RankGroup(cache.geometry, cache.shared_memory, num_ranks=2, directory=tmp_path / "r") as group:
            with pytest.raises(DeviceError, match="not all ranks have joined"):
                group.blocks([0])
            with pytest.raises(DeadlineError, match=r"ranks \[0, 1\] of 2"):
                group.wait_ready(0.05)
        with Ranks(cache, tmp_path / "ranks", 2) as ranks:
            sequence = cache.sequence(tokens(4, seed=11))
            with pytest.raises(ValueError, match="block id 96"):
                ranks.group.blocks([96])
            with pytest.raises(ValueError, match="after_step"):
                ranks.group.blocks([0], after_step=-1)
            ranks.fill(sequence.keys(0))
            assert cache.store(sequence, ranks.group.blocks(range(4))).wait(WAIT_S).ok
            with pytest.raises(ValueError, match="names a block twice"):
                cache.load(sequence, ranks.group.blocks([0, 1, 2, 2]))
            ranks.agents[0].mark_step(3)
            with pytest.raises(ValueError, match="steps are marked in their order"):
                ranks.agents[0].mark_step(3)
            with pytest.raises(ValueError, match="host memory has no events"):
                ranks.agents[0].mark_step(4, object())


def test_a_group_needs_a_directory_of_its_own_that_is_private(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=16) as cache:
        arguments = {"num_ranks": 1, "directory": tmp_path / "ranks"}
        with RankGroup(cache.geometry, cache.shared_memory, **arguments):  # type: ignore[arg-type]
            assert (tmp_path / "ranks").stat().st_mode & 0o777 == 0o700
            assert (tmp_path / "ranks" / "ranks.sock").stat().st_mode & 0o777 == 0o600
            with pytest.raises(ConfigError, match="another cache listens there"):
                RankGroup(cache.geometry, cache.shared_memory, **arguments)  # type: ignore[arg-type]
        assert not (tmp_path / "ranks" / "ranks.sock").exists()
        (tmp_path / "ranks").chmod(0o750)
        with pytest.raises(ConfigError, match="chmod 700"):
            RankGroup(cache.geometry, cache.shared_memory, **arguments)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="longer than"):
            RankGroup(cache.geometry, cache.shared_memory, num_ranks=1, directory=tmp_path / ("d" * 120))
        with pytest.raises(ValueError, match="num_ranks"):
            RankGroup(cache.geometry, cache.shared_memory, num_ranks=0, directory=tmp_path / "other")
        with pytest.raises(ValueError, match="cancel_s"):
            RankTimeouts(cancel_s=0)


def test_the_host_tier_and_the_buffers_of_the_disk_tier_are_shared(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=16, disk=16) as cache:
        assert [memory.resident for memory in cache.shared_memory] == [True, False]
        assert cache.stats().tiers[0].name == TierName.HOST.name.lower()


def test_blocks_go_to_shared_memory_only(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", host=16) as cache, Ranks(cache, tmp_path / "ranks", 2) as ranks:
        memory = ranks.group.blocks([0]).reach()
        start, stop = cache.shared_memory[0].address, cache.shared_memory[0].address + cache.shared_memory[0].num_bytes
        for address in (start - 4096, start + 8, stop - 4096, stop):
            with pytest.raises(ValueError, match="does not share"):
                memory.gather(np.array([address], np.uint64))
        with pytest.raises(ValueError, match="2 addresses for 1 blocks"):
            memory.scatter(np.array([start, start], np.uint64))
        memory.gather(np.array([stop - cache.geometry.block_bytes], np.uint64))
