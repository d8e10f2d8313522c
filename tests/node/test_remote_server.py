"""A running node and a client on another machine: what it counts is what is stored, in its namespaces alone."""

import json
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.remote_node import made_keys
from tests.helpers.small_engine import MODEL, TOKENS_PER_BLOCK, SmallEngine, config, tokens
from tiercel.errors import ConfigError, ThrottledError
from tiercel.hashing import Sequence, root_key
from tiercel.node.endpoint import SOCKET_NAME, LocalEndpoint
from tiercel.node.namespaces import read_secret
from tiercel.node.remote import RemoteNode, read_client_keys
from tiercel.node.server import NodeServer
from tiercel.node.server.facts import document

PROMPT = tokens(20, seed=1, extra=5)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


PORT = free_port()


def settings_of(keys: Path, **more: Any) -> dict[str, Any]:
    given = {"node_remote_endpoint": f"tcp://127.0.0.1:{PORT}", "node_keys_dir": str(keys)}
    return {**given, "node_secret_file": str(keys / "node_secret"), **more}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return made_keys(tmp_path / "keys")


@pytest.fixture
def node(tmp_path: Path, keys: Path) -> Iterator[NodeServer]:
    settings = config(tmp_path / "cache", disk=64, **settings_of(keys))
    with NodeServer(MODEL, settings, LocalEndpoint(tmp_path / "node")) as node:
        root = root_key(node.cache.fingerprint, "a", read_secret(keys / "node_secret"))
        sequence = Sequence(root, TOKENS_PER_BLOCK, PROMPT, origin=node.cache.origin)
        node.cache.store(sequence, SmallEngine(node.cache.geometry).fill(sequence)).wait(10)
        yield node


def client_of(keys: Path, name: str) -> RemoteNode:
    return RemoteNode(f"tcp://127.0.0.1:{PORT}", read_client_keys(keys / f"{name}.client.json"), timeout_s=10.0)


def test_a_remote_client_counts_what_is_stored_in_its_namespace(node: NodeServer, keys: Path) -> None:
    with client_of(keys, "a") as client:
        assert client.count_hits(PROMPT, "a") == 320
        assert client.count_hits(tokens(20, seed=2), "a") == 0
        assert client.prefetch(PROMPT, "a") == 320
        assert client.stats().model == MODEL.model_id
        assert client.status().clients == []
        with pytest.raises(PermissionError):
            client.count_hits(PROMPT, "b")
        assert client.status().remote["declined"] == 1
        assert client.stats().activity.counters["node_events"]["remote_declined"] == 1
    assert node.cache.settle(10)
    assert all(tier.num_pinned == 0 for tier in node.cache.stats().tiers)


def test_another_namespace_finds_nothing_and_a_reset_forgets(node: NodeServer, keys: Path) -> None:
    with client_of(keys, "ops") as client:
        assert client.count_hits(PROMPT, "b") == 0
        assert client.count_hits(PROMPT, "a") == 320
        client.reset()
        assert client.count_hits(PROMPT, "a") == 0


@pytest.mark.parametrize("missing", ["node_keys_dir", "node_secret_file"])
def test_a_tcp_endpoint_without_keys_or_secret_is_refused_with_the_remedy(
    tmp_path: Path, keys: Path, missing: str
) -> None:
    settings = config(**settings_of(keys, **{missing: None}))
    with pytest.raises(ConfigError, match=f"{missing}.*tiercel node keygen --directory DIR"):
        NodeServer(MODEL, settings, LocalEndpoint(tmp_path / "node"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"node_keys_dir": None}, "node_remote_endpoint = .*node_keys_dir is missing"),
        ({"node_keys_dir": "/nowhere"}, "/nowhere/server.json"),
        ({"node_remote_endpoint": "ipc:///run/t"}, "node_remote_endpoint: .*tcp://HOST:PORT"),
        ({"node_remote_endpoint": None}, "node_keys_dir = .*node_remote_endpoint is missing"),
    ],
)
def test_a_mistake_in_the_settings_of_tcp_is_told_before_the_cache_is_opened(
    tmp_path: Path, keys: Path, changed: dict[str, Any], message: str
) -> None:
    settings = config(tmp_path / "cache", disk=64, **{**settings_of(keys), **changed})
    with pytest.raises(ConfigError, match=message):
        NodeServer(MODEL, settings, LocalEndpoint(tmp_path / "node"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:47318", "Cannot assign requested address.*; name an address of this machine"),
        ("no-such-interface:47318", "No such device.*; name an address of this machine"),
        ("taken", "Address already in use.*; end the process that has the port"),
    ],
)
def test_an_address_where_nobody_can_listen_is_told_with_its_setting_before_the_cache_is_opened(
    tmp_path: Path, keys: Path, address: str, reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"tcp://127.0.0.1:{taken.getsockname()[1]}" if address == "taken" else f"tcp://{address}"
        settings = config(tmp_path / "cache", disk=64, **settings_of(keys, node_remote_endpoint=where))
        with pytest.raises(ConfigError, match=f"node_remote_endpoint = '{where}': nobody can listen there .{reason}"):
            NodeServer(MODEL, settings, LocalEndpoint(tmp_path / "node"))
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "node" / SOCKET_NAME).exists()


def test_a_client_that_comes_while_the_cache_is_opened_is_told_to_ask_again(tmp_path: Path, keys: Path) -> None:
    told: list[str] = []

    def ask(*_: object) -> None:
        if told:
            return
        with client_of(keys, "ops") as client, pytest.raises(ThrottledError) as caught:
            client.status()
        told.append(str(caught.value))

    settings = config(host=16, **settings_of(keys))
    with NodeServer(MODEL, settings, LocalEndpoint(tmp_path / "node"), progress=ask):
        assert "the node is starting" in told[0]
        with client_of(keys, "ops") as client:
            assert client.status().clients == []


WITHOUT_NETLINK = """
import ctypes, struct, sys
refuse, allow = (0x06, 0, 0, 0x50000 | 97), (0x06, 0, 0, 0x7FFF0000)
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, 41), (0x20, 0, 0, 16), (0x15, 0, 1, 16), refuse, allow]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
described = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, described) == 0, ctypes.get_errno()
from tiercel.cli import main
sys.exit(main(["node", "run", "--config", sys.argv[1]]))
"""
"""Refuses socket(AF_NETLINK) with EAFNOSUPPORT by a seccomp filter, as RestrictAddressFamilies= does, and runs a node."""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter has this processor's number of a system call")
def test_a_node_that_may_not_look_for_its_addresses_says_so_and_is_not_aborted(tmp_path: Path, keys: Path) -> None:
    settings = config(tmp_path / "cache", disk=64, server_recv_port=f"ipc://{tmp_path}/node", **settings_of(keys))
    (tmp_path / "node.json").write_text(json.dumps(document(MODEL, settings), default=list))
    command = [sys.executable, "-c", WITHOUT_NETLINK, str(tmp_path / "node.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "AF_NETLINK are not allowed); allow them beside AF_INET" in done.stderr
