"""Ranks and caches in processes of their own, killed and stopped in every state: nothing hangs, leaks or is wrong."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.faults.test_cache_faults import assert_nothing_is_held
from tests.helpers.rank_engine import WAIT_S, RankProcess, ask_all, open_cache, until
from tests.helpers.seeds import chosen_seed
from tests.helpers.small_engine import SmallEngine, tokens
from tiercel import BlockStatus, Cache, Outcome, RankGroup, Ticket

KILLS = int(os.environ.get("TIERCEL_RANK_KILLS", "6"))
BOUND_S = 5.0
"""What a second may take on a busy machine."""


@contextmanager
def opened(directory: Path, num_ranks: int = 2) -> Iterator[tuple[Cache, RankGroup, list[RankProcess]]]:
    """A cache and ranks in processes of their own."""
    with ExitStack() as stack:
        cache = stack.enter_context(open_cache(directory / "cache", host=64, disk=128))
        group = RankGroup(cache.geometry, cache.shared_memory, num_ranks=num_ranks, directory=directory / "ranks")
        stack.callback(group.close)
        ranks = []
        for number in range(num_ranks):
            ranks.append(RankProcess(directory / "ranks", number, num_ranks))
            stack.callback(ranks[-1].close)
        group.wait_ready(WAIT_S)
        yield cache, group, ranks


def begin(cache: Cache, group: RankGroup, kind: str, *, after_step: int | None, timeout_s: float = 60.0) -> Ticket:
    """Begin a store, or a load of what an engine in this process stored."""
    sequence = cache.sequence(tokens(8, seed=2))
    blocks = group.blocks(range(8), after_step=after_step)
    if kind == "store":
        return cache.store(sequence, blocks, timeout_s=timeout_s)
    engine = SmallEngine(cache.geometry)
    assert cache.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
    return cache.load(sequence, blocks, timeout_s=timeout_s)


def test_shards_of_processes_come_back_byte_for_byte(tmp_path: Path) -> None:
    with opened(tmp_path) as (cache, group, ranks):
        sequence = cache.sequence(tokens(24, seed=1))
        keys = sequence.keys(0)
        ask_all(ranks, "fill", keys)
        assert cache.store(sequence, group.blocks(range(24))).wait(WAIT_S).ok
        ask_all(ranks, "poison")
        assert cache.load(sequence, group.blocks(range(24))).wait(WAIT_S).ok
        assert ask_all(ranks, "num_right", keys) == [24, 24]
        engine = SmallEngine(cache.geometry)
        assert cache.load(sequence, engine.blocks(0, 24)).wait(WAIT_S).ok
        engine.check(sequence, 24)


@pytest.mark.parametrize("state", ["waits for its step", "is stopped"])
@pytest.mark.parametrize("kind", ["store", "load"])
def test_the_copies_of_a_killed_rank_fail_at_once(tmp_path: Path, kind: str, state: str) -> None:
    with opened(tmp_path) as (cache, group, ranks):
        if state == "is stopped":
            ranks[1].signal(signal.SIGSTOP)
        ticket = begin(cache, group, kind, after_step=None if state == "is stopped" else 7)
        assert not until_done(ticket, 0.1)
        ranks[1].signal(signal.SIGKILL)
        started = time.monotonic()
        if kind == "store" and state != "is stopped":
            ranks[0].ask("mark_step", 7)
        result = ticket.wait(WAIT_S)
        assert time.monotonic() - started < BOUND_S
        assert (result.outcome, result.num_blocks_ok) == (Outcome.DONE, 0)
        assert result.statuses[0] == BlockStatus.IO_ERROR
        assert "rank 1" in group.failure
        assert until(lambda: all(tier.num_writing == 0 for tier in cache.stats().tiers))
        assert_nothing_is_held(cache)
        late = cache.store(cache.sequence(tokens(4, seed=3)), group.blocks(range(4))).wait(WAIT_S)
        assert late.num_blocks_ok == 0
        assert_nothing_is_held(cache)


def until_done(ticket: Ticket, seconds: float) -> bool:
    time.sleep(seconds)
    return ticket.done


def test_an_idle_rank_that_is_killed_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path) as (_, group, ranks):
        ranks[0].signal(signal.SIGKILL)
        assert until(lambda: "rank 0" in group.failure)


def test_a_stopped_rank_costs_a_store_its_deadline_and_holds_the_slots_until_it_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as (cache, group, ranks):
        ranks[1].signal(signal.SIGSTOP)
        started = time.monotonic()
        result = begin(cache, group, "store", after_step=None, timeout_s=0.3).wait(WAIT_S)
        assert result.outcome is Outcome.DEADLINE
        assert time.monotonic() - started < BOUND_S
        assert sum(tier.num_writing for tier in cache.stats().tiers) >= 8
        ranks[1].signal(signal.SIGCONT)
        assert until(lambda: all(tier.num_writing == 0 for tier in cache.stats().tiers))
        assert_nothing_is_held(cache)
        assert begin(cache, group, "store", after_step=None).wait(WAIT_S).ok


def test_a_stopped_rank_that_is_killed_gives_the_slots_back(tmp_path: Path) -> None:
    with opened(tmp_path) as (cache, group, ranks):
        ranks[1].signal(signal.SIGSTOP)
        assert begin(cache, group, "store", after_step=None, timeout_s=0.3).wait(WAIT_S).outcome is Outcome.DEADLINE
        ranks[1].signal(signal.SIGKILL)
        assert until(lambda: all(tier.num_writing == 0 for tier in cache.stats().tiers))
        assert_nothing_is_held(cache)


def test_a_rank_that_was_stopped_writes_to_nothing_that_was_given_up(tmp_path: Path) -> None:
    with opened(tmp_path) as (cache, group, ranks):
        ranks[1].signal(signal.SIGSTOP)
        ticket = begin(cache, group, "load", after_step=None, timeout_s=0.3)
        assert ticket.wait(WAIT_S).outcome is Outcome.DEADLINE
        assert until(lambda: cache.stats().tiers[0].num_pinned == 0)
        ranks[1].signal(signal.SIGCONT)
        ranks[1].ask("fence")
        ranks[1].ask("poison")
        time.sleep(0.1)
        assert ranks[1].ask("num_right", cache.sequence(tokens(8, seed=2)).keys(0)) == 0
        assert_nothing_is_held(cache)


@pytest.mark.timeout(60 + 20 * KILLS)
def test_a_rank_killed_at_a_random_moment_of_work_leaves_no_wrong_byte_and_no_leak(tmp_path: Path) -> None:
    chance = random.Random(chosen_seed())
    for cycle in range(KILLS):
        with opened(tmp_path / str(cycle)) as (cache, group, ranks):
            engine, kill_at = SmallEngine(cache.geometry), time.monotonic() + chance.uniform(0.0, 0.2)
            stored, victim = [], chance.choice(ranks)
            for seed in range(10_000):
                if time.monotonic() > kill_at:
                    victim.signal(signal.SIGKILL)
                    kill_at = float("inf")
                if group.failure:
                    break
                sequence = cache.sequence(tokens(24, seed=seed))
                if kill_at < float("inf"):
                    ask_all(ranks, "fill", sequence.keys(0))
                cache.store(sequence, group.blocks(range(24))).wait(WAIT_S)
                cache.load(sequence, group.blocks(range(24, 48))).wait(WAIT_S)
                if kill_at < float("inf"):
                    stored.append(sequence)
            assert group.failure
            assert_nothing_is_held(cache)
            for sequence in stored:
                engine.check(sequence, cache.load(sequence, engine.blocks(0, 24)).wait(WAIT_S).num_blocks_ok)


def _run_cache(directory: Path, pipe: Connection) -> None:
    with open_cache(directory / "cache", host=64) as cache:
        group = RankGroup(cache.geometry, cache.shared_memory, num_ranks=2, directory=directory / "ranks")
        group.wait_ready(WAIT_S)
        pipe.send("ready")
        for seed in range(10_000_000):
            cache.store(cache.sequence(tokens(8, seed=seed)), group.blocks(range(8))).wait(WAIT_S)


def test_ranks_of_a_killed_cache_let_go_of_its_memory_and_live_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    with ExitStack() as stack:
        ranks = [RankProcess(tmp_path / "ranks", number, 2) for number in range(2)]
        for rank in ranks:
            stack.callback(rank.close)
        cache = context.Process(target=_run_cache, args=(tmp_path, theirs), daemon=True)
        cache.start()
        stack.callback(cache.close)
        assert ours.poll(WAIT_S)
        assert ask_all(ranks, "holds_shared_memory") == [True, True]
        time.sleep(0.1)
        cache.kill()
        cache.join()
        assert ask_all(ranks, "wait_ended") == [True, True]
        assert ask_all(ranks, "holds_shared_memory") == [False, False]
        ask_all(ranks, "fence")
        ask_all(ranks, "mark_step", 1)
        ours.close()
        theirs.close()


def test_a_closed_group_leaves_nothing_mapped_and_no_process_behind(tmp_path: Path) -> None:
    with opened(tmp_path) as (_, group, ranks):
        group.close()
        assert ask_all(ranks, "wait_ended") == [True, True]
        assert ask_all(ranks, "holds_shared_memory") == [False, False]
