"""Tenants of a node: its clients join, a reserve holds against other clients, and a node is started with them."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.helpers.node_client import WAIT_S, node
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import NodeClient, connect
from tiercel.config import load_config
from tiercel.node.namespaces import write_secret
from tiercel.node.server.facts import document

BLOCKS = 8
TENANTS: dict[str, Any] = {
    "search": {"namespaces": ["search", "search-lora"], "reserve": "50%", "weight": 4},
    "batch": {"namespaces": "batch", "limit": {"cpu": "25%"}, "bandwidth": {"cpu": "1GiB/s"}},
}


def store(client: NodeClient, namespace: str, seed: int) -> None:
    sequence = client.sequence(tokens(BLOCKS, seed=seed), namespace=namespace)
    assert client.store(sequence, SmallEngine(client.geometry, BLOCKS).fill(sequence)).wait(WAIT_S).ok


def load(client: NodeClient, namespace: str, seed: int) -> int:
    """How many blocks are there, each checked byte for byte."""
    engine, sequence = (
        SmallEngine(client.geometry, BLOCKS),
        client.sequence(tokens(BLOCKS, seed=seed), namespace=namespace),
    )
    count = client.load(sequence, engine.blocks(0, BLOCKS)).wait(WAIT_S).num_blocks_ok
    engine.check(sequence, count)
    return count


@pytest.mark.parametrize("is_secret", [False, True])
def test_what_is_reserved_for_a_tenant_no_other_client_evicts(tmp_path: Path, is_secret: bool) -> None:
    if is_secret:
        write_secret(tmp_path / "secret")
    secret = str(tmp_path / "secret") if is_secret else None
    with (
        node(config(host=64, tenants=TENANTS, node_secret_file=secret)) as (_, endpoint),
        connect(endpoint, name="one") as one,
        connect(endpoint, name="two") as two,
    ):
        for seed in range(4):
            store(one, "search", seed)
        for seed in range(100, 110):
            store(two, "batch", seed)
            store(two, "", seed)
        assert [load(one, "search", seed) for seed in range(4)] == [BLOCKS] * 4
        held = {tenant.name: tenant.held for tenant in two.stats().tiers[0].tenants}
        assert held["search"] == 4 * BLOCKS
        assert 0 < held["batch"] <= 16


def test_a_client_is_not_told_of_the_tenants() -> None:
    with node(config(host=64, tenants=TENANTS)) as (_, endpoint), connect(endpoint) as client:
        assert client.config.tenant_list == ()


def test_the_file_that_a_node_is_started_with_says_all_that_was_set(tmp_path: Path) -> None:
    bound = {"a": ["search"], "*": [""]}
    given = config(
        tmp_path,
        disk=8,
        tenants=TENANTS,
        node_namespaces=bound,
        node_secret_file="/run/secret",
        eviction_policy="slru",
        ssd_io_engine="threads",
    )
    file = tmp_path / "node.json"
    file.write_bytes(msgspec.json.encode(document(MODEL, given)))
    loaded = load_config(file, environ={})
    assert (loaded.config, loaded.model) == (given, MODEL)
