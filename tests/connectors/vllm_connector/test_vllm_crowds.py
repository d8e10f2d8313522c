"""Several requests side by side: few of them are staged at a time, and few store what they generated in one step."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.vllm_connector.mini_vllm import BLOCK, Mini, MiniRequest, request
from tests.connectors.vllm_connector.test_vllm_requests import assert_nothing_is_left, settle
from tests.helpers.small_engine import MODEL, config
from tiercel import Cache
from tiercel.connectors.vllm import scheduling, staging

NUM_REQUESTS = 7
TOKENS = 8 * BLOCK + 1


def prompts(name: str) -> list[MiniRequest]:
    return [request(f"{name}{number}", TOKENS, seed=number) for number in range(NUM_REQUESTS)]


def reopened(directory: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache that has the prompts on a disk that reads once the gate is open."""
    with Cache.open(MODEL, config(directory, host=64, disk=256)) as cache:
        mini = Mini(cache)
        for one in prompts("a"):
            mini.run(one)
            settle(mini)
            mini.finish(one)
            mini.drain()
    cache = Cache.open(MODEL, config(directory, host=64, disk=256))
    disk = cache._assembly.tiers[max(cache._assembly.tiers)]
    read = disk.read

    def read_late(*given: Any) -> Any:
        assert gate.wait(60)
        return read(*given)

    monkeypatch.setattr(disk, "read", read_late)
    return cache


def test_the_first_are_staged_while_the_others_ask_again_and_all_are_loaded_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with reopened(tmp_path, gate, monkeypatch) as cache:
        mini, waiting = Mini(cache), prompts("b")
        for one in waiting:
            mini.add(one)
        for _ in range(3):
            assert [mini.ask(one) for one in waiting] == [None] * NUM_REQUESTS
        tracked = [mini.scheduler._requests.track(one) for one in waiting]
        assert [each.staging is not None for each in tracked] == [True] * 4 + [False] * 3
        assert staging._STAGED_AT_ONCE == 4
        gate.set()
        stop_at, loaded = time.monotonic() + 10, 0
        while waiting and time.monotonic() < stop_at:
            for one in list(waiting):
                external = mini.ask(one)
                if external is not None:
                    assert external == 8 * BLOCK
                    loaded += 1
                    waiting.remove(one)
            time.sleep(0.001)
        assert loaded == NUM_REQUESTS
        assert_nothing_is_left(mini)


def test_those_that_were_not_staged_by_their_deadline_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with reopened(tmp_path, gate, monkeypatch) as cache:
        mini, waiting = Mini(cache, load_timeout_s=0.2), prompts("b")
        for one in waiting:
            mini.add(one)
        assert [mini.ask(one) for one in waiting] == [None] * NUM_REQUESTS
        time.sleep(0.25)
        assert [mini.ask(one) for one in waiting[4:]] == [0] * 3
        gate.set()
        assert_nothing_is_left(mini)


def test_what_is_generated_is_stored_some_blocks_at_a_time_by_few_requests_a_step(
    tmp_path: Path,
) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        store_generated(Mini(cache))


def store_generated(mini: Mini) -> None:
    requests = [request(f"r{number}", 2 * BLOCK + 3, seed=number) for number in range(5)]
    for one in requests:
        mini.run(one)
        one.block_ids += [mini.free.pop(0) for _ in range(10)]
        mini.scheduler._requests.track(one).block_ids = one.block_ids
    stored = []
    for step in range(10 * BLOCK - 4):
        for one in requests:
            one.all_token_ids.append(step)
        stored += [(step, len(order.block_ids)) for order in mini.step(dict.fromkeys(requests, 1)).stores]
    at = 8 * BLOCK - 4  # the step in which the eighth generated block is whole
    assert stored == [(at, 8), (at, 8), (at + 1, 8), (at + 1, 8), (at + 2, 8)]
    for one in requests:
        assert mini.finish(one)
    mini.drain()
    settle(mini)
    assert next(tier.num_ready for tier in mini.cache.stats().tiers) == 5 * (2 + 9), "the rest, when they ended"
    assert_nothing_is_left(mini)


def test_when_vllm_lacks_blocks_a_slow_store_gives_up_those_of_a_finished_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with Cache.open(MODEL, config(tmp_path, host=8, disk=256)) as cache:
        mini, disk = Mini(cache), cache._assembly.tiers[max(cache._assembly.tiers)]
        write = disk.write

        def write_late(*given: Any) -> Any:
            assert gate.wait(60)
            return write(*given)

        monkeypatch.setattr(disk, "write", write_late)
        first, second = request("a", 8 * BLOCK + 1, seed=1), request("b", 8 * BLOCK + 1, seed=2)
        mini.run(first)
        mini.run(second)
        assert mini.finish(second), "host memory is full, so a disk that does not write keeps its blocks"
        waiting = request("c", 8 * BLOCK + 1, seed=3)
        mini.add(waiting)
        mini.ask(waiting)
        mini.step()
        assert "b" in mini.held, "a moment is what any store may take"
        time.sleep(scheduling._HELD_S)
        mini.step()
        assert "b" in mini.held, "nobody asked for room since"
        mini.ask(waiting)
        mini.step()
        assert "b" not in mini.held
        gate.set()
        assert_nothing_is_left(mini)
