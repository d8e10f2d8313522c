"""A node and clients that speak to it by hand: what is stored comes back to anybody, and what a client held comes back, too."""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.raw_client import WAIT_S, RawClient, ask, datagram, dial, receive
from tests.helpers.small_engine import MODEL, config, tokens
from tiercel import ConfigError
from tiercel.hashing import root_key
from tiercel.node.calls import AskStats, AskStatus, CountHits, Failed, Hits, Okay, OpenNamespace, Reset, Stats, Status
from tiercel.node.codec import encode
from tiercel.node.endpoint import SOCKET_NAME, LocalEndpoint
from tiercel.node.events import Observe
from tiercel.node.joining import Hello, Join, Refused
from tiercel.node.namespaces import write_secret
from tiercel.node.protocol import Kind
from tiercel.node.server import NodeServer
from tiercel.tiers.base import BlockStatus, TierName

BLOCKS = 8


def open_node(tmp_path: Path, **settings: Any) -> NodeServer:
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


def test_a_load_that_fails_says_nothing_of_the_blocks(node: NodeServer) -> None:
    with connect(node, "first") as first:
        sequence, number = first.sequence(tokens(BLOCKS, seed=2))
        first.engine.fill(sequence)
        first.wait(first.store(sequence, number))
        with connect(node, "second") as second:
            same, theirs = second.sequence(tokens(BLOCKS, seed=2))
            second.stop()
            ticket = second.launch(second.lookup(same, theirs), timeout_s=0.3)
            assert isinstance(ticket, int)
            until(lambda: node.status().clients[1].tickets == 0)
        assert first.lookup(sequence, number).matched_blocks == BLOCKS


def test_a_client_that_was_stopped_costs_nobody_else_his_time(node: NodeServer) -> None:
    with connect(node, "stopped") as stopped, connect(node, "live") as live:
        prompt, theirs = stopped.sequence(tokens(BLOCKS, seed=3))
        stopped.engine.fill(prompt)
        stopped.wait(stopped.store(prompt, theirs))
        stopped.stop()
        for seed in range(4):
            found = stopped.lookup(prompt, theirs)
            assert isinstance(stopped.launch(found, timeout_s=8.0), int)
            other, number = stopped.sequence(tokens(2, seed=100 + seed))
            stopped.store(other, number, timeout_s=8.0)
        slowest = 0.0
        for seed in range(10, 20):
            sequence, number = live.sequence(tokens(BLOCKS, seed=seed))
            live.engine.fill(sequence)
            began = time.monotonic()
            assert set(live.wait(live.store(sequence, number)).statuses) == {BlockStatus.OK}
            live.engine.poison()
            ticket = live.launch(live.lookup(sequence, number))
            assert isinstance(ticket, int)
            assert set(live.wait(ticket).statuses) == {BlockStatus.OK}
            slowest = max(slowest, time.monotonic() - began)
            live.engine.check(sequence, BLOCKS)
        assert slowest < 4.0, "the live client waited for the stopped one's deadline"
        assert node.status().clients[0].tickets == 8


def test_what_a_stopped_client_may_still_write_to_stays_reserved_until_it_answers(node: NodeServer) -> None:
    with connect(node, "stopped") as stopped:
        sequence, number = stopped.sequence(tokens(BLOCKS, seed=4))
        stopped.engine.fill(sequence)
        stopped.stop()
        stopped.store(sequence, number, timeout_s=0.3)
        until(lambda: node.status().clients[0].tickets == 0)
        stats = node.cache.index.stats(0)
        assert stats.num_free + stats.num_ready < stats.num_slots
        assert node.status().clients[0].copies == 1
        stopped.running.set()
        until(lambda: not node.status().clients[0].copies)
        assert_nothing_is_held(node)
        again = stopped.wait(stopped.store(sequence, number))
        assert set(again.statuses) == {BlockStatus.OK}


def test_a_client_that_leaves_without_a_word_gives_everything_back(node: NodeServer) -> None:
    with connect(node, "gone") as gone, connect(node, "other") as other:
        sequence, number = gone.sequence(tokens(BLOCKS, seed=5))
        gone.engine.fill(sequence)
        gone.wait(gone.store(sequence, number))
        assert gone.lookup(sequence, number).lookup
        assert node.cache.index.stats(0).num_pinned == BLOCKS
        gone.events.shutdown(socket.SHUT_RDWR)
        assert until(lambda: len(node.status().clients) == 1) < 2.0
        assert_nothing_is_held(node)
        same, theirs = other.sequence(tokens(BLOCKS, seed=5))
        assert other.lookup(same, theirs).matched_blocks == BLOCKS


def test_clients_that_were_stopped_in_stores_without_a_host_tier_hold_up_no_load_and_no_store(tmp_path: Path) -> None:
    settings = config(tmp_path / "disk", host=0, disk=256)
    with NodeServer(MODEL, settings, LocalEndpoint(tmp_path / "node")) as node, ExitStack() as opened:
        for number in range(5):
            stopped = opened.enter_context(connect(node, f"stopped {number}"))
            stopped.stop()
            for seed in range(3):
                sequence, theirs = stopped.sequence(tokens(2, seed=100 * number + seed))
                stopped.store(sequence, theirs)
        until(lambda: all(client.copies for client in node.status().clients))
        live = opened.enter_context(connect(node, "live"))
        for seed in range(10, 14):
            sequence, number = live.sequence(tokens(BLOCKS, seed=seed))
            live.engine.fill(sequence)
            assert set(live.wait(live.store(sequence, number), 5.0).statuses) == {BlockStatus.OK}
            live.engine.poison()
            ticket = live.launch(live.lookup(sequence, number))
            assert isinstance(ticket, int)
            assert set(live.wait(ticket, 5.0).statuses) == {BlockStatus.OK}
            live.engine.check(sequence, BLOCKS)


def test_a_lookup_that_was_throttled_can_be_launched_again(tmp_path: Path) -> None:
    with open_node(tmp_path, transfer_queue_depth_max=8) as node, connect(node) as client:
        sequence, number = client.sequence(tokens(2, seed=6))
        client.engine.fill(sequence)
        client.wait(client.store(sequence, number))
        found = [client.lookup(sequence, number) for _ in range(9)]
        client.stop()
        waiting = [client.launch(one) for one in found[:8]]
        refused = client.launch(found[8], at=4)
        assert isinstance(refused, Failed)
        assert refused.error == "ThrottledError"
        assert node.status().clients[0].lookups == 1
        client.running.set()
        for one in waiting:
            assert isinstance(one, int)
            client.wait(one)
        ticket = client.launch(found[8], at=4)
        assert isinstance(ticket, int)
        assert set(client.wait(ticket).statuses) == {BlockStatus.OK}
        again = client.launch(found[8], at=4)
        assert isinstance(again, Failed)
        assert again.error == "StaleTicketError"


def test_a_lookup_that_was_throttled_is_released_as_soon_as_the_client_gives_it_up(tmp_path: Path) -> None:
    with open_node(tmp_path, transfer_queue_depth_max=8) as node, connect(node) as client:
        sequence, number = client.sequence(tokens(2, seed=6))
        client.engine.fill(sequence)
        client.wait(client.store(sequence, number))
        found = [client.lookup(sequence, number) for _ in range(9)]
        client.stop()
        waiting = [client.launch(one) for one in found[:8]]
        assert isinstance(client.launch(found[8], at=4), Failed)
        client.fast.send(datagram(Kind.RELEASE, struct.pack("<Q", found[8].lookup)))
        assert until(lambda: node.status().clients[0].lookups == 0) < 2.0
        client.running.set()
        for one in waiting:
            assert isinstance(one, int)
            client.wait(one)
        assert_nothing_is_held(node)


def test_a_lookup_that_was_throttled_goes_with_its_client(tmp_path: Path) -> None:
    with open_node(tmp_path, transfer_queue_depth_max=8) as node:
        with connect(node) as client:
            sequence, number = client.sequence(tokens(2, seed=6))
            client.engine.fill(sequence)
            client.wait(client.store(sequence, number))
            found = [client.lookup(sequence, number) for _ in range(9)]
            client.stop()
            assert all(isinstance(client.launch(one), int) for one in found[:8])
            assert isinstance(client.launch(found[8], at=4), Failed)
        assert_nothing_is_held(node)


def test_a_client_has_so_many_tickets_and_no_more(tmp_path: Path) -> None:
    with open_node(tmp_path, node_tickets_max=1) as node, connect(node) as client:
        sequence, number = client.sequence(tokens(2, seed=7))
        client.engine.fill(sequence)
        client.wait(client.store(sequence, number))
        first, second = client.lookup(sequence, number), client.lookup(sequence, number)
        client.stop()
        assert isinstance(client.launch(first), int)
        refused = client.launch(second, at=4)
        assert isinstance(refused, Failed)
        assert "node_tickets_max" in refused.text


def test_namespaces_are_given_to_those_that_the_settings_name(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    write_secret(secret)
    settings: dict[str, Any] = {"node_namespaces": {"a": ["red"], "*": ["blue", ""]}, "node_secret_file": str(secret)}
    with open_node(tmp_path, **settings) as node, connect(node, "a") as a, connect(node, "b") as b:
        assert len(a.root("red")) == len(b.root("blue")) == 16
        assert b.root("") != root_key(node.cache.fingerprint, "")
        for client, namespace in ((a, "blue"), (b, "red")):
            answer = client.call(OpenNamespace(namespace))
            assert isinstance(answer, Failed)
            assert (answer.error, "node_namespaces" in answer.text) == ("ConfigError", True)
        assert isinstance(b.call(CountHits("red", bytes(16))), Failed)


def test_namespaces_cannot_be_bound_without_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="node_secret_file"):
        open_node(tmp_path, node_namespaces={"a": ["red"]})


def test_blocks_are_counted_and_everything_is_forgotten_on_request(node: NodeServer) -> None:
    with connect(node) as client:
        sequence, number = client.sequence(tokens(BLOCKS, seed=8))
        client.engine.fill(sequence)
        client.wait(client.store(sequence, number))
        keys = sequence.keys().tobytes()
        assert client.call(CountHits("", keys)) == Hits(BLOCKS)
        assert client.call(CountHits("", keys[:-1])) != Hits(BLOCKS)
        found = client.lookup(sequence, number)
        assert client.call(Reset()) == Okay()
        stale = client.launch(found)
        assert isinstance(stale, Failed)
        assert stale.error == "StaleTicketError"
        assert client.call(CountHits("", keys)) == Hits(0)
        assert_nothing_is_held(node)


def test_a_client_of_another_geometry_is_turned_away_and_told_why(node: NodeServer) -> None:
    parts = {**node.cache.geometry.fingerprint_parts(), "num_layers": 99}
    with dial(node.endpoint.directory) as connection:
        refused = ask(connection, Hello("odd", parts))
        assert isinstance(refused, Refused)
        assert "num_layers = 99" in refused.reason
        assert receive(connection)[0] is None
    assert node.status().refused == 1


def test_only_who_knows_the_token_joins_and_only_one_call_at_a_time_is_answered(node: NodeServer) -> None:
    with connect(node) as client:
        with dial(node.endpoint.directory) as connection:
            assert isinstance(ask(connection, Join(client.welcome.client, bytes(16))), Refused)
        with dial(node.endpoint.directory) as connection:
            assert isinstance(ask(connection, AskStatus()), Refused)
        calls = client.join()
        status = ask(calls, AskStatus())
        assert isinstance(status, Status)
        assert [(one.name, one.process) for one in status.clients] == [("raw", os.getpid())]
        assert isinstance(ask(calls, AskStats()), Stats)
        assert isinstance(ask(calls, Hello("twice", None)), Refused)
        assert client.call(CountHits("", b"")) == Hits(0)
        assert node.status().malformed == 2


@pytest.mark.parametrize("seconds", [5e-324, 1e-200, 0.0])
def test_a_prefill_in_no_time_cuts_its_client_and_nobody_else(node: NodeServer, seconds: float) -> None:
    with connect(node) as client, connect(node) as other:
        client.events.send(encode(Observe(0, 16, seconds)))
        assert client.over.wait(WAIT_S)
        assert "a prefill needs" in client.reason
        assert other.call(CountHits("", b"")) == Hits(0)
        assert node.cache.costs().num_prefills == 0


def test_the_node_tells_its_clients_when_it_ends(tmp_path: Path) -> None:
    node = open_node(tmp_path)
    with connect(node) as client:
        node.close()
        assert client.over.wait(WAIT_S)
        assert client.reason == "the node ends"
    assert not (node.endpoint.directory / SOCKET_NAME).exists()


def test_a_second_node_is_refused_and_a_dead_ones_place_is_taken(tmp_path: Path, node: NodeServer) -> None:
    with pytest.raises(ConfigError, match="another node runs at"):
        open_node(tmp_path)
    with connect(node) as client:
        assert client.call(CountHits("", b"")) == Hits(0)
    node.close()
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(str(node.endpoint.directory / SOCKET_NAME))
    stale.close()
    with open_node(tmp_path) as other, connect(other) as client:
        assert client.call(CountHits("", b"")) == Hits(0)
