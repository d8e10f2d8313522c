"""The connector's two halves over a small engine that steps as vLLM does: stores, hits, aborts, preemption, failures."""

import gc
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.connectors.vllm_connector.mini_vllm import BLOCK, Mini, request
from tests.helpers.small_engine import MODEL, config
from tiercel import BlockStatus, Cache, ThrottledError, TierFailedError, TierName
from tiercel.connectors.vllm.plans import StoreOrder


@pytest.fixture
def mini(tmp_path: Path) -> Iterator[Mini]:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        yield mini
        assert_nothing_is_left(mini)


def assert_nothing_is_left(mini: Mini) -> None:
    for one in list(mini.requests.values()):
        mini.finish(one)
    mini.step()
    mini.drain()
    settle(mini)
    gc.collect()
    for tier in mini.cache.stats().tiers:
        assert (tier.num_pinned, tier.num_writing) == (0, 0), f"{tier.name}: something is held"
    shared = mini.shared
    for left in (shared.loads, shared.orders_open, shared.held, shared.restart_at, shared.blocks_lost):
        assert not left, f"left behind: {left}"
    assert len(set(mini.free)) == len(mini.free) == 255, "engine blocks were lost or freed twice"


def settle(mini: Mini) -> None:
    for tickets in mini.shared.stores.values():
        for ticket in tickets:
            ticket.wait(10)
    deadline = time.monotonic() + 10
    while mini.cache._dispatcher.num_running and time.monotonic() < deadline:
        time.sleep(0.001)


@contextmanager
def held(mini: Mini, act: str) -> Iterator[threading.Event]:
    """Let the host tier read or write only once the event is set."""
    host, go = mini.cache._dispatcher.transfer._tiers[TierName.HOST], threading.Event()
    whole = getattr(host, act)

    def wait(*arguments: Any) -> Any:
        assert go.wait(20)
        return whole(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, act, wait)
        yield go


def num_ready(mini: Mini, tier: str) -> int:
    return next(status.num_ready for status in mini.cache.stats().tiers if status.name == tier)


def test_a_prompt_that_was_stored_is_loaded_byte_for_byte(mini: Mini) -> None:
    first = request("a", 10 * BLOCK + 3)
    assert mini.run(first) == 0
    settle(mini)
    mini.finish(first)
    mini.kv.poison()
    again = request("b", 10 * BLOCK + 3)
    assert mini.run(again) == 10 * BLOCK
    mini.check(again, 10 * BLOCK)


def test_the_last_token_of_a_prompt_is_always_computed(mini: Mini) -> None:
    first = request("a", 4 * BLOCK)
    mini.run(first)
    settle(mini)
    assert mini.run(request("b", 4 * BLOCK)) == 3 * BLOCK


def test_only_what_lies_behind_the_engines_own_hit_is_loaded(mini: Mini) -> None:
    mini.run(request("a", 8 * BLOCK + 1))
    settle(mini)
    again = request("b", 8 * BLOCK + 1)
    mini.add(again)
    assert mini.ask(again, 5 * BLOCK) == 3 * BLOCK
    assert mini.ask(again, 8 * BLOCK) == 0


def test_prefill_chunks_are_stored_as_they_complete(mini: Mini) -> None:
    one = request("a", 6 * BLOCK)
    mini.add(one)
    assert mini.ask(one) == 0
    mini.admit(one, 0)
    for chunk, expected in ((BLOCK + 5, 1), (BLOCK, 2), (2 * BLOCK, 4)):
        mini.step({one: chunk}, new=(one,) if one.num_computed_tokens == 0 else ())
        settle(mini)
        assert num_ready(mini, "host") == expected


def test_tokens_that_are_not_confirmed_are_never_stored(mini: Mini) -> None:
    one = request("a", 2 * BLOCK - 1)
    mini.run(one)
    one.block_ids.append(mini.free.pop(0))
    mini.step({one: BLOCK + 5})  # drafts and placeholders: computed, not known
    settle(mini)
    assert num_ready(mini, "host") == 1
    one.all_token_ids += list(range(BLOCK))
    one.num_computed_tokens = 3 * BLOCK - 2
    assert mini.finish(one)
    mini.drain()
    settle(mini)
    assert num_ready(mini, "host") == 2


def test_what_the_last_steps_confirmed_is_stored_when_a_request_ends(mini: Mini) -> None:
    one = request("a", 2 * BLOCK - 1)
    mini.run(one)
    one.all_token_ids += [7, 8]
    mini._compute(one, 1)
    assert mini.finish(one), "its blocks must be held until they are read"
    mini.step()
    mini.drain()
    settle(mini)
    assert num_ready(mini, "host") == 2


def test_a_request_that_is_aborted_before_it_runs_leaves_no_pin(mini: Mini) -> None:
    mini.run(request("a", 5 * BLOCK + 1))
    settle(mini)
    again = request("b", 5 * BLOCK + 1)
    mini.add(again)
    assert mini.ask(again) == 5 * BLOCK
    assert not mini.finish(again)


@pytest.mark.parametrize("launched", [False, True])
def test_a_request_that_is_aborted_while_it_loads_gets_its_blocks_back_once(mini: Mini, launched: bool) -> None:
    mini.run(request("a", 20 * BLOCK + 1))
    settle(mini)
    again = request("b", 20 * BLOCK + 1)
    mini.add(again)
    external = mini.ask(again)
    assert external
    mini.admit(again, external)
    with held(mini, "read") as go:
        if launched:
            plan = mini.scheduler.build_plan(_empty())
            mini.worker.begin(plan)
            mini.worker.load(plan)
        assert mini.finish(again), "vLLM keeps the blocks until it hears that the load ended"
        go.set()
        mini.drain()
    assert not mini.shared.failures.counts, "nothing is recomputed for a request that is gone"


def test_loads_launched_behind_a_pass_wait_for_what_came_before_it_only(
    mini: Mini, monkeypatch: pytest.MonkeyPatch
) -> None:
    mini.run(request("a", 5 * BLOCK + 1))
    settle(mini)
    again = request("b", 5 * BLOCK + 1)
    mini.add(again)
    external = mini.ask(again)
    assert external
    mini.admit(again, external)
    stands_at = "before the pass"
    waited_for: list[object] = []
    reach = mini.shared.require_reach()
    blocks = reach.blocks

    def noted(ids: Iterable[int], after: object) -> object:
        waited_for.append(after)
        return blocks(ids, None)

    monkeypatch.setattr(reach, "now", lambda: stands_at)
    monkeypatch.setattr(reach, "blocks", noted)
    plan = mini.scheduler.build_plan(_empty())
    mini.worker.begin(plan)
    stands_at = "behind the pass"
    mini.worker.load(plan)
    assert waited_for == ["before the pass"]
    mini.drain()


def _empty() -> object:
    cached = SimpleNamespace(req_ids=[], new_block_ids=[], resumed_req_ids=set())
    return SimpleNamespace(num_scheduled_tokens={}, scheduled_new_reqs=[], scheduled_cached_reqs=cached)


@pytest.mark.parametrize("in_time", [True, False])
def test_a_fence_lets_a_store_end_or_stops_it_before_vllm_writes_to_the_blocks(
    mini: Mini, in_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_time:
        monkeypatch.setattr("tiercel.connectors.vllm.reach.LocalReach.fence_wait_s", 20.0)
    one = request("a", 12 * BLOCK + 1)
    with held(mini, "write") as go:
        mini.run(one)
        (ticket,) = mini.shared.stores["a"]
        assert not ticket.source_free, "the store has not read the blocks"
        mini.preempt(one)
        if in_time:
            threading.Timer(0.1, go.set).start()
        plan = mini.step()
        assert plan.fences == ("a",)
        assert ticket.source_free, "nothing reads the blocks any more"
        mini.kv.poison()
        go.set()
        assert ticket.wait(10).num_blocks_ok == (12 if in_time else 0)
    settle(mini)
    external = 12 * BLOCK if in_time else 0
    assert mini.ask(one) == external
    mini.admit(one, external)
    while one.waits_for_load:
        mini.step()
    mini.check(one, external)


def test_blocks_on_disk_are_staged_before_they_are_promised(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        mini.run(request("a", 12 * BLOCK + 1))
        settle(mini)
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        again = request("b", 12 * BLOCK + 1)
        mini.add(again)
        assert mini.ask(again) is None
        mini.finish(again)
        third = request("c", 12 * BLOCK + 1)
        assert mini.run(third) == 12 * BLOCK
        mini.check(third, 12 * BLOCK)
        assert_nothing_is_left(mini)


def test_a_corrupt_block_on_disk_is_not_promised(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        mini.run(request("a", 12 * BLOCK + 1))
        settle(mini)
    data = max(tmp_path.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(data.read_bytes())
    at = next(i for i in range(0, len(content), 64) if any(content[i : i + 64]))
    content[at + 64 * 7] ^= 1
    data.write_bytes(content)
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        one = request("b", 12 * BLOCK + 1)
        assert mini.run(one) < 12 * BLOCK
        mini.check(one, 12 * BLOCK)
        assert not mini.failed_blocks
        assert_nothing_is_left(mini)


def test_a_store_that_finds_the_queue_full_is_made_up_for(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    one = request("a", 6 * BLOCK + 1)
    mini.add(one)
    mini.ask(one)
    mini.admit(one, 0)
    with monkeypatch.context() as patched:
        patched.setattr(mini.cache, "store", _raise(ThrottledError("full")))
        mini.step({one: 3 * BLOCK}, new=(one,))
    assert num_ready(mini, "host") == 0
    mini.step({one: 3 * BLOCK})
    settle(mini)
    assert num_ready(mini, "host") == 6
    assert mini.shared.failures.counts == {"store: ThrottledError": 1}


@pytest.mark.parametrize("call", ["lookup", "load", "store", "prefetch"])
def test_an_error_of_ours_costs_a_recompute_and_nothing_else(
    mini: Mini, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    mini.run(request("a", 4 * BLOCK + 1))
    settle(mini)
    monkeypatch.setattr(mini.cache, call, _raise(TierFailedError("dead")))
    one = request("b", 4 * BLOCK + 1)
    external = mini.run(one)
    if call == "load":
        assert external == 4 * BLOCK
        assert mini.failed_blocks == set(one.block_ids[:4])
        one.num_computed_tokens, one.num_preemptions = 0, 1
        assert mini.ask(one) == 0, "what could not be loaded is computed"
    else:
        mini.check(one, 4 * BLOCK)


def _raise(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_request_is_told_to_ask_again_until_its_deadline_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        mini.run(request("a", 8 * BLOCK + 1))
        settle(mini)
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache, load_timeout_s=0.2)
        gate = threading.Event()
        disk = cache._assembly.tiers[max(cache._assembly.tiers)]
        read = disk.read

        def read_late(*given: Any) -> Any:
            assert gate.wait(60)
            return read(*given)

        monkeypatch.setattr(disk, "read", read_late)
        assert mini.run(request("b", 8 * BLOCK + 1)) == 0, "computed while the disk still reads"
        gate.set()
        assert_nothing_is_left(mini)


def test_a_reset_forgets_everything_and_leaves_the_connector_usable(mini: Mini) -> None:
    mini.run(request("a", 5 * BLOCK + 1))
    settle(mini)
    waiting = request("b", 5 * BLOCK + 1)
    mini.add(waiting)
    assert mini.ask(waiting) == 5 * BLOCK
    mini.scheduler.reset()
    assert mini.ask(waiting) == 0
    mini.admit(waiting, 0)
    mini.step({waiting: 5 * BLOCK}, new=(waiting,))
    settle(mini)
    assert num_ready(mini, "host") == 5, "computed after the reset"


def test_nothing_that_was_computed_before_a_reset_is_stored_after_it(mini: Mini) -> None:
    """A reset follows new weights: what a running request holds is of the old ones, and all that it computes builds on that."""
    one, ended = request("a", 5 * BLOCK + 1), request("b", 2 * BLOCK - 1, seed=1)
    mini.run(one)
    mini.run(ended)
    ended.all_token_ids += [7, 8]
    mini._compute(ended, 1)
    assert mini.finish(ended), "its last block is ordered and not launched yet"
    mini.scheduler.reset()
    one.all_token_ids += [1] * BLOCK
    one.block_ids.append(mini.free.pop(0))
    mini.step({one: BLOCK})
    settle(mini)
    assert num_ready(mini, "host") == 0
    mini.preempt(one)
    mini.step()
    mini.ask(one)
    mini.admit(one, 0)
    mini.step({one: one.num_tokens}, new=(one,))
    settle(mini)
    assert num_ready(mini, "host") == 6, "kept again once it was computed anew"


def test_a_store_that_loses_blocks_after_its_request_has_ended_leaves_nothing(mini: Mini) -> None:
    one = request("a", 4 * BLOCK + 1)
    mini.run(one)
    settle(mini)
    mini.finish(one)
    mini.step()
    order = StoreOrder(request_id="a", sequence=mini.cache.sequence(), first_block=0, block_ids=(1,))
    ended: Any = SimpleNamespace(try_wait=lambda: SimpleNamespace(statuses=[BlockStatus.MISSING]))
    mini.worker._restart_where_missing(order, ended)()
    assert not mini.shared.restart_at


def test_two_salts_share_nothing(mini: Mini) -> None:
    first = request("a", 4 * BLOCK + 1)
    first.cache_salt = "one"
    mini.run(first)
    settle(mini)
    second = request("b", 4 * BLOCK + 1)
    second.cache_salt = "two"
    mini.add(second)
    assert mini.ask(second) == 0
