"""A rank that does not answer: tickets end in time, and nothing that it may still touch is used for something else."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_cache_faults import assert_nothing_is_held
from tests.helpers.rank_engine import WAIT_S, Ranks, open_cache, until
from tests.helpers.small_engine import SmallEngine, tokens
from tiercel import BlockStatus, Cache, DeadlineError, Outcome, RankAgent, RankTimeouts, Ticket

QUICK = RankTimeouts(cancel_s=0.05, close_s=0.2)
SLOTS = 48


@contextmanager
def opened(directory: Path, num_threads: int = 3, **settings: Any) -> Iterator[tuple[Cache, Ranks, SmallEngine]]:
    """A cache, two ranks, and an engine in this process beside them."""
    with (
        open_cache(directory / "cache", **settings) as cache,
        Ranks(cache, directory / "r", 2, timeouts=QUICK, num_threads=num_threads) as ranks,
    ):
        yield cache, ranks, SmallEngine(cache.geometry)


def num_writing(cache: Cache) -> int:
    return sum(tier.num_writing for tier in cache.stats().tiers)


def num_free_buffers(cache: Cache) -> int:
    """Lanes of the disk tier's buffers that nobody uses; without one, 8."""
    disk = cache._assembly.disk
    return 8 if disk is None else len(disk._bounce._free)


def hold_store(cache: Cache, ranks: Ranks, seed: int, **arguments: Any) -> Ticket:
    """Begin a store of 8 blocks that rank 1 holds in the middle."""
    sequence = cache.sequence(tokens(8, seed=seed))
    ranks.fill(sequence.keys(0))
    ranks.held[1].gate.clear()
    ticket = cache.store(sequence, ranks.group.blocks(range(8)), **arguments)
    assert ranks.held[1].begun.acquire(timeout=WAIT_S)
    return ticket


@pytest.mark.parametrize(("host", "disk"), [(SLOTS, 0), (SLOTS, 256), (0, SLOTS)])
def test_what_a_silent_rank_may_still_write_to_is_not_used_until_it_answers(
    tmp_path: Path, host: int, disk: int
) -> None:
    with opened(tmp_path, host=host, disk=disk) as (cache, ranks, engine):
        ticket = hold_store(cache, ranks, 1)
        ticket.cancel()
        result = ticket.wait(WAIT_S)
        assert (result.outcome, result.num_blocks_ok) == (Outcome.CANCELLED, 0)
        assert num_writing(cache) >= 8
        assert num_free_buffers(cache) == (7 if host == 0 else 8), "what it may write to is a buffer of the disk tier's"
        sequences = [cache.sequence(tokens(8, seed=seed)) for seed in range(100, 112)]  # twice what there is room for
        for sequence in sequences:
            assert cache.store(sequence, engine.fill(sequence)).wait(WAIT_S).num_blocks_ok == 8, "a lane is held"
        ranks.shards[1].poison()  # what the silent rank writes when it goes on would be seen
        ranks.held[1].gate.set()
        assert until(lambda: num_writing(cache) == 0 and num_free_buffers(cache) == 8)
        for sequence in sequences:
            engine.poison()
            engine.check(sequence, cache.load(sequence, engine.blocks(0, 8)).wait(WAIT_S).num_blocks_ok)
        assert_nothing_is_held(cache)


def test_a_silent_rank_is_asked_for_nothing_until_it_answers(tmp_path: Path) -> None:
    with opened(tmp_path, host=SLOTS) as (cache, ranks, _):
        hold_store(cache, ranks, 2).cancel()
        sequence = cache.sequence(tokens(4, seed=3))
        result = cache.store(sequence, ranks.group.blocks(range(4))).wait(WAIT_S)
        assert (result.outcome, result.statuses[0]) == (Outcome.DONE, BlockStatus.IO_ERROR)
        ranks.held[1].gate.set()
        assert until(lambda: num_writing(cache) == 0)
        assert cache.store(sequence, ranks.group.blocks(range(4))).wait(WAIT_S).ok


def test_a_late_store_ends_at_its_deadline(tmp_path: Path) -> None:
    with opened(tmp_path, host=SLOTS) as (cache, ranks, _):
        result = hold_store(cache, ranks, 4, timeout_s=0.1).wait(WAIT_S)
        assert result.outcome is Outcome.DEADLINE
        assert num_writing(cache) == 8


def test_the_fence_of_a_rank_waits_for_a_copy_that_was_given_up_and_the_pins_do_not(tmp_path: Path) -> None:
    with opened(tmp_path, host=SLOTS) as (cache, ranks, engine):
        sequence = cache.sequence(tokens(8, seed=5))
        assert cache.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
        ranks.held[1].gate.clear()
        ticket = cache.load(sequence, ranks.group.blocks(range(8)), timeout_s=0.1)
        assert ranks.held[1].begun.acquire(timeout=WAIT_S)
        assert ticket.wait(WAIT_S).outcome is Outcome.DEADLINE
        assert until(lambda: cache.stats().tiers[0].num_pinned == 0)
        ranks.agents[0].fence(1)
        with pytest.raises(DeadlineError, match="still touches"):
            ranks.agents[1].fence(0.05)
        ranks.held[1].gate.set()
        ranks.agents[1].fence(WAIT_S)
        ranks.shards[1].poison()
        time.sleep(0.05)
        assert ranks.shards[1].is_poisoned(0, 8)
        assert until(lambda: cache.load(sequence, ranks.group.blocks(range(8))).wait(WAIT_S).ok)
        assert_nothing_is_held(cache)


def test_the_fence_does_not_wait_for_copies_that_are_wanted(tmp_path: Path) -> None:
    with opened(tmp_path, host=SLOTS) as (cache, ranks, _):
        ticket = hold_store(cache, ranks, 6)
        ranks.agents[1].fence(0.05)
        ranks.held[1].gate.set()
        assert ticket.wait(WAIT_S).ok


def test_a_cancelled_copy_that_has_not_begun_never_begins(tmp_path: Path) -> None:
    with opened(tmp_path, num_threads=1, host=SLOTS) as (cache, ranks, engine):
        sequence = cache.sequence(tokens(4, seed=7))
        assert cache.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
        busy = hold_store(cache, ranks, 10)  # so the one thread of rank 1 does not listen
        assert ranks.held[0].begun.acquire(timeout=WAIT_S)
        waiting = cache.load(sequence, ranks.group.blocks(range(30, 34)))
        assert ranks.held[0].begun.acquire(timeout=WAIT_S)
        time.sleep(0.05)  # rank 0 was asked first
        waiting.cancel()
        ranks.held[1].gate.set()
        assert busy.wait(WAIT_S).ok
        ranks.agents[1].fence()
        later = cache.sequence(tokens(4, seed=8))
        assert until(
            lambda: cache.store(later, ranks.group.blocks(range(4))).wait(WAIT_S).ok
        )  # behind it, in one thread
        assert ranks.shards[1].is_poisoned(30, 34)
        assert_nothing_is_held(cache)


def test_a_group_with_a_silent_rank_closes_in_its_time_and_keeps_what_that_may_write_to(tmp_path: Path) -> None:
    with opened(tmp_path, host=SLOTS) as (cache, ranks, engine):
        ticket = hold_store(cache, ranks, 11, timeout_s=0.5)
        ranks.group.close()
        assert ticket.wait(WAIT_S).outcome is Outcome.DEADLINE
        assert num_writing(cache) == 8
        ranks.held[1].gate.set()
        assert until(lambda: num_writing(cache) == 0)
        assert_nothing_is_held(cache)
        sequence = cache.sequence(tokens(8, seed=12))
        assert cache.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok


def test_closing_an_agent_ends_the_copy_under_way_and_refuses_the_rest(tmp_path: Path) -> None:
    with opened(tmp_path, host=SLOTS) as (cache, ranks, _):
        ticket = hold_store(cache, ranks, 13)
        parked = cache.store(cache.sequence(tokens(4, seed=14)), ranks.group.blocks(range(4), after_step=9))
        ranks.agents[0].close()
        ranks.held[1].gate.set()
        assert not parked.wait(WAIT_S).ok
        ticket.wait(WAIT_S)
        assert until(lambda: num_writing(cache) == 0)
        assert_nothing_is_held(cache)


def test_a_copy_that_the_fence_took_off_the_socket_runs_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, host=SLOTS) as (cache, ranks, engine):
        sequence = cache.sequence(tokens(2, seed=30))
        assert cache.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
        over = threading.Event()

        def fence(agent: RankAgent) -> None:
            while not over.is_set():
                agent.fence()

        engines = [threading.Thread(target=fence, args=(agent,)) for agent in ranks.agents]
        for thread in engines:
            thread.start()
        try:
            results = [cache.load(sequence, ranks.group.blocks(range(2)), timeout_s=5).wait(WAIT_S) for _ in range(50)]
        finally:
            over.set()
            for thread in engines:
                thread.join(WAIT_S)
        assert [result.outcome for result in results] == [Outcome.DONE] * 50
