"""Real vLLM engines on one node: what one stored the other finds, and whoever dies costs a recompute, never a wrong token."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.running_node import (
    kill_node,
    node_clients,
    node_process,
    node_snapshot,
    node_status,
    place_of_a_node,
    until,
)
from tests.helpers.vllm_checks import Reference, check_hits, check_nothing_is_held, tier_of, with_cache
from tests.helpers.vllm_engine import TOKENS_PER_BLOCK, Engine, EngineSpec, why_no_vllm
from tests.helpers.vllm_requests import Request, mixed_requests

pytestmark = [
    pytest.mark.skipif(bool(why_no_vllm()), reason=f"{why_no_vllm()}: the vLLM connector is NOT tested"),
    pytest.mark.timeout(600),
]

GONE_S = 2.0
"""How soon a node has taken back what a killed client had."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with place_of_a_node() as endpoint:
        yield endpoint


def on_node(spec: EngineSpec, endpoint: str, folder: Path | None = None, **settings: object) -> EngineSpec:
    """The engine on a node, which the first one starts and the last one ends."""
    settings = {"start_node": True, "node_lifetime": "end_with_last_client", **settings}
    return with_cache(spec, folder, server_recv_port=endpoint, **settings)


def long_requests(seed: int, count: int) -> list[Request]:
    """Requests with several blocks each, with no block in common."""
    found = [request for request in mixed_requests(seed, 20 * count) if len(request.tokens) > 100 and not request.salt]
    chosen = {request.tokens[:TOKENS_PER_BLOCK]: request for request in found}
    return [replace(request, arrives_at=0, aborts_after=None) for request in list(chosen.values())[:count]]


def full_hits(requests: list[Request]) -> dict[str, int]:
    return {request.name: (len(request.tokens) - 1) // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK for request in requests}


def start_both(spec: EngineSpec, pool: ThreadPoolExecutor) -> list[Engine]:
    """Start two engines at the same time."""
    return list(pool.map(Engine, [spec, spec]))


def test_two_engines_start_one_node_share_what_they_store_and_end_it(
    spec: EngineSpec, reference: Reference, endpoint: str, tmp_path: Path, seed: int
) -> None:
    cached = on_node(spec, endpoint, tmp_path / "cache")
    shared, mixed = long_requests(seed, 4), [mixed_requests(seed + number, 30) for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first, second = start_both(cached, pool)
        with first, second:
            assert sorted(client.process for client in node_clients(endpoint)) == sorted((first.pid, second.pid))
            stored = first.run_alone(shared)
            check_hits(shared, stored, dict.fromkeys(stored, 0))
            found = second.run_alone(shared)
            reference.check(shared, found)
            check_hits(shared, found, full_hits(shared))
            for requests, answers in zip(mixed, pool.map(Engine.run, (first, second), mixed), strict=True):
                reference.check(requests, answers)
            first.settle()
            check_nothing_is_held(second, cached)
            check_nothing_is_held(first, cached)
            # A store may end early, where vLLM needs the blocks of a request that it puts off.
            given_up = node_snapshot(endpoint).activity.recompute.keys() - {"store: NO_ROOM"}
            assert given_up <= {"load: CANCELLED"}, "only aborts end loads"
            first.close()
            assert until(lambda: len(node_clients(endpoint)) == 1)
            second.close()
    assert until(lambda: node_status(endpoint) is None), "the node did not end with its last engine"


def test_a_node_that_is_killed_and_an_engine_that_is_cost_a_recompute(
    spec: EngineSpec, reference: Reference, endpoint: str, tmp_path: Path, seed: int
) -> None:
    cached = on_node(spec, endpoint, tmp_path / "cache")
    shared, mixed = long_requests(seed, 3), mixed_requests(seed, 60)
    with ThreadPoolExecutor(2) as pool:
        first, second = start_both(cached, pool)
        with first, second:
            first.run_alone(shared)
            killed = node_process(endpoint)
            running = [pool.submit(engine.run, mixed) for engine in (first, second)]
            time.sleep(0.3)
            assert kill_node(endpoint) == killed
            for answers in running:
                reference.check(mixed, answers.result())
            assert until(lambda: len(node_clients(endpoint)) == 2), "the engines have no node any more"
            assert node_process(endpoint) != killed
            found = second.run_alone(shared)
            reference.check(shared, found)
            check_hits(shared, found, full_hits(shared))
            assert tier_of(second, "disk").blocks_read > 0, "the disk tier was cold"
            first.begin("run", mixed)
            time.sleep(0.2)
            first.kill()
            assert until(lambda: [client.process for client in node_clients(endpoint)] == [second.pid], GONE_S)
            reference.check(mixed, second.run(mixed))
            check_nothing_is_held(second, cached)
            second.close()


@pytest.mark.processes
def test_two_ranks_find_what_two_ranks_stored_and_join_a_node_again_that_was_killed(
    spec: EngineSpec, endpoint: str, tmp_path: Path, seed: int
) -> None:
    ranked = replace(spec, in_one_process=False, options={"tensor_parallel_size": 2})
    cached = on_node(ranked, endpoint, tmp_path / "cache", node_lifetime="stay", load_timeout_s=30)
    reference = Reference(ranked)
    shared, mixed = long_requests(seed, 4), mixed_requests(seed, 40)
    try:
        with Engine(cached) as first:
            reference.check(shared, first.run_alone(shared))
            first.close()
        with Engine(cached) as second:
            found = second.run_alone(shared)
            reference.check(shared, found)
            check_hits(shared, found, full_hits(shared))
            second.begin("run", mixed)
            time.sleep(0.5)
            kill_node(endpoint)
            reference.check(mixed, second._answer(240.0))
            assert until(lambda: bool(node_clients(endpoint)))

            def loads_again() -> bool:
                answers = second.run_alone(shared)
                reference.check(shared, answers)
                return {name: answer.cached_tokens for name, answer in answers.items()} == full_hits(shared)

            assert until(loads_again), "the workers did not join the new node"
            check_nothing_is_held(second, cached)
            second.close()
    finally:
        reference.close()


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_requests_between_the_ends_of_three_nodes_get_the_engines_own_answers(
    spec: EngineSpec, reference: Reference, endpoint: str, tmp_path: Path, seed: int, number: signal.Signals
) -> None:
    cached = on_node(spec, endpoint, tmp_path / "cache", num_cpu_blocks=40)
    requests = mixed_requests(seed, 150)
    with Engine(cached) as engine, ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.run, requests)
        for _ in range(3):
            time.sleep(1.0)
            if until(lambda: node_status(endpoint) is not None):
                kill_node(endpoint, number)
        reference.check(requests, running.result())
        assert until(lambda: bool(node_clients(endpoint)))
        check_nothing_is_held(engine, cached)
        engine.close()
