"""The connector on a node: who starts it, who is refused, and ranks that share blocks over it and join it again."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.connectors.vllm_connector.mini_vllm import BLOCK, request
from tests.connectors.vllm_connector.test_vllm_ranks import RankedEngine
from tests.helpers.running_node import (
    kill_node,
    node_clients,
    node_process,
    node_snapshot,
    node_status,
    place_of_a_node,
    until,
)
from tests.helpers.small_engine import MODEL
from tiercel import BlockGeometry, ConfigError, DeadlineError
from tiercel.config import load_config
from tiercel.connectors.vllm.keys import Adapters, make_sequence
from tiercel.connectors.vllm.model import ModelBlocks
from tiercel.connectors.vllm.opening import OpenCache
from tiercel.connectors.vllm.settings import ConnectorSettings, read_settings
from tiercel.node.endpoint import LocalEndpoint, default_endpoint, parse_endpoint
from tiercel.node.server.ensuring import NodeGuard, ensure_node

VLLM_CONFIG = SimpleNamespace(parallel_config=SimpleNamespace(data_parallel_index=1))


def _settings(endpoint: str | None, **extra: Any) -> ConnectorSettings:
    where = {} if endpoint is None else {"server_recv_port": endpoint}
    given = {"num_cpu_blocks": 64, "cpu_hugepages": False, **where, **extra}
    return read_settings(given, block_size=BLOCK, environ={})


def _blocks(**changes: Any) -> ModelBlocks:
    return ModelBlocks(model=MODEL, geometry=BlockGeometry.from_model(MODEL, tokens_per_block=BLOCK, **changes))


@pytest.fixture
def endpoint() -> Iterator[str]:
    with place_of_a_node() as endpoint:
        yield endpoint


def test_a_node_is_named_by_a_key_a_variable_or_a_file(tmp_path: Path) -> None:
    assert _settings(None).endpoint is None
    assert _settings("ipc:///run/t").endpoint == LocalEndpoint(Path("/run/t"))
    assert _settings(None, start_node=True).endpoint == default_endpoint()
    environ = {"TIERCEL_SERVER_RECV_PORT": "ipc:///run/t"}
    assert read_settings({}, block_size=BLOCK, environ=environ).endpoint == LocalEndpoint(Path("/run/t"))
    file = tmp_path / "cache.json"
    file.write_text(json.dumps({"server_recv_port": "ipc:///run/t", "cache_config": {}}))
    found = read_settings({"config_file": str(file)}, block_size=BLOCK, environ={})
    assert found.endpoint == LocalEndpoint(Path("/run/t"))
    assert found.given == ()
    assert _settings("ipc:///run/t").given == ("num_cpu_blocks", "cpu_hugepages")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"server_recv_port": "tcp://host:5555"}, "one host"),
        ({"server_recv_port": "/run/t"}, "ipc:///DIRECTORY"),
        ({"start_node": "yes"}, "start_node"),
        ({"start_nod": True}, "start_node"),
        ({"node_wait_s": 0}, "node_wait_s"),
    ],
)
def test_what_names_no_node_is_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(extra, block_size=BLOCK, environ={})


def test_an_engine_waits_for_its_node_no_longer_than_it_is_told(endpoint: str) -> None:
    with pytest.raises(DeadlineError, match=f"no node listened at {endpoint} in 0.2 s"):
        OpenCache(_blocks(), VLLM_CONFIG, _settings(endpoint, node_wait_s=0.2))


def test_an_engine_that_waits_for_its_node_says_what_that_nodes_file_begins_with(
    endpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tiercel")
    with pytest.raises(DeadlineError):
        OpenCache(_blocks(), VLLM_CONFIG, _settings(endpoint, node_wait_s=0.1))
    (line,) = [text for text in caplog.messages if text.startswith("waiting up to")]
    file = tmp_path / "node.yaml"
    file.write_text(line.partition("begin with ")[2])
    loaded = load_config(file)
    assert loaded.model == MODEL
    assert (loaded.config.tokens_per_block, loaded.config.node_block_order) == (BLOCK, "token_head")


def test_an_engine_with_other_blocks_is_told_what_its_node_would_have_to_be(endpoint: str) -> None:
    first = OpenCache(_blocks(), VLLM_CONFIG, _settings(endpoint, start_node=True))
    try:
        assert not list(Path(endpoint.removeprefix("ipc://")).rglob("dp1")), "one node, whatever the engines' number"
        with pytest.raises(
            ConfigError, match=r"order = 'token_head', not 'head_token'.*\"node_block_order\": \"head_token\""
        ):
            OpenCache(_blocks(order="head_token"), VLLM_CONFIG, _settings(endpoint))
        assert until(lambda: len(node_clients(endpoint)) == 1)
    finally:
        first.close()


def test_engines_that_start_at_once_start_one_node_between_them(endpoint: str) -> None:
    config, where = _settings(endpoint).cache, parse_endpoint(endpoint)
    assert isinstance(where, LocalEndpoint)
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: ensure_node(MODEL, config, where, timeout_s=60), range(4)))
    assert sorted(started) == [False, False, False, True]
    assert node_status(endpoint) is not None


def test_a_node_that_died_is_started_again_and_its_engine_finds_it(endpoint: str) -> None:
    opened = OpenCache(_blocks(), VLLM_CONFIG, _settings(endpoint, start_node=True))
    try:
        first = kill_node(endpoint)
        assert until(lambda: bool(node_clients(endpoint))), "the engine has no node any more"
        assert node_process(endpoint) != first
    finally:
        opened.close()
    assert until(lambda: not node_clients(endpoint))


def test_a_guard_goes_on_after_a_start_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiercel.node.server.ensuring._PAUSE_S", 0.01)
    attempts, served = [], threading.Event()

    def start(_: object) -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise DeadlineError("not yet")
        served.set()

    guard = NodeGuard(served.is_set, start)
    assert served.wait(20)
    guard.close()


def test_a_salt_of_any_length_makes_a_namespace() -> None:
    names: list[str] = []

    def begin(namespace: str) -> object:
        names.append(namespace)
        return SimpleNamespace(tokens_per_block=BLOCK, extend=lambda *_: None)

    cache: Any = SimpleNamespace(sequence=begin)
    for salt in ("s" * 5000, "s" * 5001, "short"):
        one = request("a", BLOCK)
        one.cache_salt = salt
        make_sequence(cache, one, Adapters())
    assert len(set(names)) == 3
    assert max(map(len, names)) < 1000


def _ranks(endpoint: str, name: str) -> RankedEngine:
    return RankedEngine(2, name=name, server_recv_port=endpoint, start_node=True, node_lifetime="stay")


def _same_blocks(left: RankedEngine, right: RankedEngine, pairs: list[tuple[int, int]]) -> bool:
    """Whether each rank's share of these blocks is the same in both engines."""
    return all(
        torch.equal(mine[name][a], theirs[name][b])
        for mine, theirs in zip(left.tensors, right.tensors, strict=True)
        for name in mine
        for a, b in pairs
    )


def test_what_two_ranks_of_one_engine_stored_two_ranks_of_another_load(endpoint: str, tmp_path: Path) -> None:
    first, second = _ranks(endpoint, f"{tmp_path}a"), _ranks(endpoint, f"{tmp_path}b")
    try:
        first.store(request("a", 3 * BLOCK + 1), [1, 2, 3, 4])
        assert second.load(request("b", 3 * BLOCK + 1), [7, 8, 9, 10]) == 3 * BLOCK
        assert _same_blocks(first, second, [(1, 7), (2, 8), (3, 9)])
        assert not _same_blocks(first, second, [(4, 10)])
        assert [client.name for client in node_clients(endpoint)] == ["vllm", "vllm"]
        host = node_snapshot(endpoint).tiers[0]
        assert (host.num_ready, host.num_pinned) == (3, 0), "a block of two ranks takes one slot"
    finally:
        first.close()
        second.close()


def test_ranks_join_the_node_again_that_was_killed(endpoint: str, tmp_path: Path) -> None:
    first, second = _ranks(endpoint, f"{tmp_path}a"), _ranks(endpoint, f"{tmp_path}b")
    try:
        first.store(request("a", 2 * BLOCK + 1), [1, 2, 3])
        kill_node(endpoint)
        assert until(lambda: len(node_clients(endpoint)) == 2), "engines and node did not find each other again"
        assert second.load(request("b", 2 * BLOCK + 1), [4, 5, 6]) == 0, "the host tier went with the node"

        def stored() -> bool:
            first.store(request("c", 3 * BLOCK + 1, seed=1), [7, 8, 9, 10])
            first.engine.require_cache().settle(5.0)
            second.step()
            return node_snapshot(endpoint).tiers[0].num_ready == 3

        assert until(stored), "the workers did not join the new node"
        assert until(lambda: _joined(second))
        assert second.load(request("d", 3 * BLOCK + 1, seed=1), [11, 12, 13, 14]) == 3 * BLOCK
        assert _same_blocks(first, second, [(7, 11), (8, 12), (9, 13)])
    finally:
        first.close()
        second.close()


def _joined(engine: RankedEngine) -> bool:
    """Whether an engine's workers have joined; a step tells them to."""
    engine.step()
    group: Any = engine.engine.reach
    return bool(group._group.num_blocks)
