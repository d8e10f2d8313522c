"""A node and clients that speak to it by hand: what is stored comes back to anybody, and what a client held comes back, too."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.raw_client import WAIT_S, RawClient, ask, dial, receive
from tests.helpers.small_engine import MODEL, config, tokens
from tiercel import ConfigError
from tiercel.node.calls import AskStats, AskStatus, Failed, Hits, CountHits, Okay, OpenNamespace, Reset, Stats, Status
from tiercel.node.codec import encode
from tiercel.node.endpoint import SOCKET_NAME, LocalEndpoint
from tiercel.node.joining import Hello, Join, Refused
from tiercel.node.server import NodeServer
from tiercel.tiers.base import BlockStatus, TierName

BLOCKS = 8


def open_node(tmp_path: Path, **settings: object) -> NodeServer:
    return NodeServer(MODEL, config(host=64, **settings), LocalEndpoint(tmp_path / "node"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeServer]:
    with open_node(tmp_path) as node:
        yield node


def connect(node: NodeServer, name: str = "raw") -> RawClient:
    return RawClient(node.endpoint.directory, node.cache.geometry, name)


def until(holds: Callable[[], bool], timeout_s: float = WAIT_S) -> float:
    """Wait for something; the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout_s, "it did not come true in time"
        time.sleep(0.005)
    return time.monotonic() - began


def assert_nothing_is_held(node: NodeServer) -> None:
    index = node.cache.index
    until(lambda: index.stats(0).num_pinned == 0 and index.stats(0).num_writing == 0)
    stats = index.stats(0)
    assert stats.num_free + stats.num_ready == stats.num_slots


def test_what_one_client_stores_another_loads_byte_for_byte(node: NodeServer) -> None:
    with connect(node, "first") as first, connect(node, "second") as second:
        sequence, number = first.sequence(tokens(BLOCKS, seed=1))
        first.engine.fill(sequence)
        ended = first.wait(first.store(sequence, number))
        assert (ended.outcome, set(ended.statuses)) == ("done", {BlockStatus.OK})
        assert [(count.tier, count.num_blocks) for count in ended.blocks] == [(TierName.HOST, BLOCKS)]
        same, theirs = second.sequence(tokens(BLOCKS, seed=1))
        found = second.lookup(same, theirs)
        assert found.matched_blocks == BLOCKS
        ticket = second.launch(found, at=10)
        assert isinstance(ticket, int)
        assert set(second.wait(ticket).statuses) == {BlockStatus.OK}
        second.engine.check(same, BLOCKS, at=10)
        assert_nothing_is_held(node)
    until(lambda: not node.status().clients)
