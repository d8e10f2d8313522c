"""A client that is killed or stopped, in each state: what it had comes back in time, and nobody else waits for it."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.helpers.client_states import BLOCKS, NAME, STATES, STORED_SEED, WRITTEN_SEED, ClientProcess
from tests.helpers.node_client import WAIT_S, node, until
from tests.helpers.small_engine import SmallEngine, config, tokens
from tiercel import NodeClient, connect
from tiercel.node.server import NodeServer

TAKEN_BACK_S = 2.0
BESIDE_S = 2.0
"""The longest that a call may take beside a client that stands still."""


@pytest.fixture
def served() -> Iterator[tuple[NodeServer, str]]:
    with node(config(host=64)) as started:
        yield started


def num_stored(client: NodeClient, seed: int) -> int:
    with client.lookup(client.sequence(tokens(BLOCKS, seed=seed))) as lookup:
        return lookup.num_blocks


def left_over(server: NodeServer) -> str:
    """What the node still keeps for a victim, "" for nothing."""
    for one in server.status().clients:
        if one.name == NAME or one.tickets or one.copies or one.lookups:
            return str(one)
    for tier in server.cache.stats().tiers:
        if tier.num_pinned or tier.num_writing or tier.num_free + tier.num_ready != tier.num_slots:
            return str(tier)
    return ""


def is_there(server: NodeServer) -> bool:
    return any(one.name == NAME for one in server.status().clients)


@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_what_a_killed_client_had_is_back_within_two_seconds(
    served: tuple[NodeServer, str], state: str, is_stopped: bool
) -> None:
    server, endpoint = served
    with ClientProcess(endpoint, state) as victim, connect(endpoint) as other:
        assert until(lambda: is_there(server))
        if is_stopped:
            victim.signal(signal.SIGSTOP)
        assert left_over(server)
        os.kill(victim.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        assert until(lambda: not left_over(server), TAKEN_BACK_S), left_over(server)
        assert time.monotonic() - killed_at < TAKEN_BACK_S
        assert num_stored(other, WRITTEN_SEED) == 0, "blocks that were half written are served"
        if state != "connecting":
            engine, sequence = SmallEngine(other.geometry), other.sequence(tokens(BLOCKS, seed=STORED_SEED))
            assert other.load(sequence, engine.blocks(0, BLOCKS)).wait(WAIT_S).num_blocks_ok == BLOCKS
            engine.check(sequence, BLOCKS)


@pytest.mark.parametrize("state", STATES)
def test_a_stopped_client_holds_up_nobody(served: tuple[NodeServer, str], state: str) -> None:
    server, endpoint = served
    with ClientProcess(endpoint, state) as victim, connect(endpoint) as other:
        engine = SmallEngine(other.geometry)
        assert until(lambda: is_there(server))
        victim.signal(signal.SIGSTOP)
        for seed in range(100, 105):
            sequence = other.sequence(tokens(BLOCKS, seed=seed))
            started = time.monotonic()
            assert other.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
            assert other.lookup(sequence).num_blocks == BLOCKS
            assert other.load(sequence, engine.blocks(8, 16)).wait(WAIT_S).ok
            assert other.stats().tiers
            assert time.monotonic() - started < BESIDE_S
            engine.check(sequence, BLOCKS, at=8)
        if state != "connecting":
            assert num_stored(other, WRITTEN_SEED) == 0
        victim.signal(signal.SIGCONT)
        if state != "connecting":
            assert victim.go_on() == BLOCKS, "what was begun before it was stopped ends well"
            assert state in ("loading", "between lookup and load") or num_stored(other, WRITTEN_SEED) == BLOCKS


def test_blocks_that_a_stopped_client_may_write_to_stay_reserved_until_it_has_answered(
    served: tuple[NodeServer, str],
) -> None:
    server, endpoint = served

    def num_kept() -> int:
        (tier,) = server.cache.stats().tiers
        return tier.num_slots - tier.num_free - tier.num_ready

    with ClientProcess(endpoint, "storing") as victim:
        victim.signal(signal.SIGSTOP)
        for session in server._service.roll.sessions():
            for number in list(session._tickets):
                session.cancel(number)
        assert until(lambda: num_kept() == BLOCKS)
        time.sleep(0.5)
        assert num_kept() == BLOCKS, "slots were given away that a client may still write to"
        victim.signal(signal.SIGCONT)
        assert victim.go_on() == 0
        assert until(lambda: num_kept() == 0)


def test_a_child_that_outlives_a_killed_client_keeps_nothing_of_its(served: tuple[NodeServer, str]) -> None:
    server, endpoint = served
    parent = os.fork()
    if parent == 0:
        client = connect(endpoint, name=NAME)
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(BLOCKS, seed=STORED_SEED))
        client.store(sequence, engine.fill(sequence)).wait(WAIT_S)
        kept = client.lookup(sequence)
        if os.fork() == 0:
            time.sleep(5)  # with all of its parent's sockets
            os._exit(0)
        time.sleep(WAIT_S)
        del kept
        os._exit(0)
    assert until(lambda: any(one.name == NAME and one.lookups for one in server.status().clients))
    time.sleep(0.2)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert until(lambda: not left_over(server), TAKEN_BACK_S), left_over(server)
