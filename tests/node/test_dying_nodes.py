"""A node that is killed, replaced, cut off or stuck at its disk: its clients miss in time, come back, and are never wrong."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.test_stuck_devices import StuckTier
from tests.helpers.client_states import BLOCKS, NAME, WRITTEN_SEED, ClientProcess, HeldBlocks
from tests.helpers.node_client import WAIT_S, NodeProcess, meeting_place, node, until
from tests.helpers.small_engine import SmallEngine, config, tokens
from tiercel import BlockStatus, ModelConfig, NodeClient, Outcome, connect
from tiercel.node.codec import encode
from tiercel.node.events import SourceFree
from tiercel.node.server import NodeServer
from tiercel.tiers.base import TierName

DEGRADED_S = 1.0
OTHER_MODEL = ModelConfig(num_layers=2, num_kv_heads=4, head_size=16, dtype="float16", model_id="other")


@pytest.fixture
def endpoint() -> Iterator[str]:
    with meeting_place() as place:
        yield place


@pytest.fixture
def memory_directory() -> Iterator[Path]:
    """A directory on a tmpfs."""
    with tempfile.TemporaryDirectory(prefix="tn-", dir="/dev/shm") as directory:
        yield Path(directory)


def is_connected(client: NodeClient) -> bool:
    return client._keeper.link.alive


def store(client: NodeClient, engine: SmallEngine, seed: int) -> None:
    sequence = client.sequence(tokens(BLOCKS, seed=seed))
    assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok


def is_whole(client: NodeClient) -> bool:
    """Whether nothing is pinned or reserved."""
    (tier,) = client.stats().tiers
    return (tier.num_pinned, tier.num_writing) == (0, 0) and tier.num_free + tier.num_ready == tier.num_slots


def load(client: NodeClient, engine: SmallEngine, seed: int) -> int:
    """Load a prompt, check what came, and return how many blocks that was."""
    sequence = client.sequence(tokens(BLOCKS, seed=seed))
    engine.poison()
    num_ok = client.load(sequence, engine.blocks(0, BLOCKS)).wait(WAIT_S).num_blocks_ok
    engine.check(sequence, num_ok)
    return num_ok


def in_time(act: Callable[[], object], bound_s: float = DEGRADED_S) -> None:
    started = time.monotonic()
    act()
    assert time.monotonic() - started < bound_s


def test_a_client_that_waits_for_a_ticket_misses_within_a_second_of_its_nodes_death(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=16)) as process, connect(endpoint) as client, connect(endpoint) as other:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(BLOCKS, seed=1))
        begun, gate = threading.Event(), threading.Event()
        held = other.store(sequence, HeldBlocks(engine.fill(sequence), begun, gate), timeout_s=60)  # type: ignore[arg-type]
        assert begun.wait(WAIT_S)
        attached = client.store(sequence, engine.blocks(0, BLOCKS), timeout_s=60)  # waits for the other one's copy
        threading.Timer(0.2, process.kill).start()
        in_time(lambda: attached.wait(WAIT_S), 0.2 + DEGRADED_S)
        assert attached.wait(0).num_blocks_ok == 0
        gate.set()
        assert held.wait(WAIT_S).num_blocks_ok == 0


def test_a_call_under_way_ends_within_a_second_of_its_nodes_death(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=16)) as process, connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(BLOCKS, seed=1))
        begun, gate = threading.Event(), threading.Event()
        client.store(sequence, HeldBlocks(engine.fill(sequence), begun, gate))  # type: ignore[arg-type]
        assert begun.wait(WAIT_S)
        threading.Timer(0.2, process.kill).start()
        in_time(lambda: client.settle(60.0), 0.2 + DEGRADED_S)  # it would wait for the store
        gate.set()


def test_an_idle_client_notices_its_nodes_death_within_a_second(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=16)) as process, connect(endpoint) as client:
        process.kill()
        assert until(lambda: not is_connected(client), DEGRADED_S)


def test_a_client_that_reconnects_finds_disk_and_kept_host_memory_warm(
    tmp_path: Path, endpoint: str, memory_directory: Path
) -> None:
    settings = config(tmp_path, host=BLOCKS, disk=64, cpu_arena_dir=str(memory_directory), cpu_hugepages=False)
    with NodeProcess(endpoint, settings) as first, connect(endpoint) as client:
        engine = SmallEngine(client.geometry)
        store(client, engine, 1)
        store(client, engine, 2)  # the first one lies on disk alone now
        first.kill()
        assert until(lambda: not is_connected(client), DEGRADED_S)
        with NodeProcess(endpoint, settings):
            assert until(lambda: is_connected(client))
            recovered = {tier.name: tier.recovered for tier in client.stats().tiers}
            assert recovered["host"] == BLOCKS
            assert recovered["disk"] >= BLOCKS
            assert [load(client, engine, seed) for seed in (1, 2)] == [BLOCKS, BLOCKS]


def test_a_client_refuses_a_node_of_another_model_says_so_once_and_waits_for_its_own(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=16)) as first, connect(endpoint) as client:
        engine = SmallEngine(client.geometry)
        store(client, engine, 1)
        first.kill()
        with NodeProcess(endpoint, config(host=16), OTHER_MODEL):
            assert until(lambda: any("model_id" in note for note in client.stats().notes))
            in_time(lambda: load(client, engine, 1))
            assert load(client, engine, 1) == 0
            time.sleep(1.5)  # it tries again
            assert sum("model_id" in note for note in client.stats().notes) == 1
        with NodeProcess(endpoint, config(host=16)):
            assert until(lambda: is_connected(client))
            store(client, engine, 1)
            assert load(client, engine, 1) == BLOCKS


def test_lookups_and_host_hits_go_on_while_the_disk_stalls(tmp_path: Path) -> None:
    with (
        node(config(tmp_path, host=3 * BLOCKS, disk=64)) as (server, endpoint),
        connect(endpoint) as client,
        connect(endpoint) as other,
    ):
        engine, theirs = SmallEngine(client.geometry), SmallEngine(other.geometry)
        for seed in range(1, 5):  # the first one lies on disk alone then
            store(client, engine, seed)
        tiers = server.cache._dispatcher.transfer._tiers
        stuck = tiers[TierName.DISK] = StuckTier(tiers[TierName.DISK])
        try:
            cold = client.sequence(tokens(BLOCKS, seed=1))
            waiting = client.load(cold, engine.blocks(64, 64 + BLOCKS), timeout_s=2.0)
            assert stuck.entered.acquire(timeout=WAIT_S)
            for _ in range(5):
                in_time(lambda: other.lookup(other.sequence(tokens(BLOCKS, seed=1))).release(), 0.5)
                in_time(lambda: load(other, theirs, 4), 0.5)
                in_time(client.stats, 0.5)
            assert load(other, theirs, 4) == BLOCKS
            assert waiting.wait(WAIT_S).outcome is Outcome.DEADLINE
        finally:
            stuck.answers.set()
        assert until(lambda: all(tier.num_pinned == 0 for tier in client.stats().tiers))
        assert load(client, engine, 1) == BLOCKS


def flood(server: NodeServer, name: str) -> None:
    """Send a client that does not read more than its outbox holds."""
    (session,) = [session for session in server._service.roll.sessions() if session.name == name]
    data = encode(SourceFree(2**40))
    assert until(lambda: not all(session.send(data) for _ in range(1000)))


def test_a_client_that_was_cut_for_not_reading_loses_its_tickets_and_comes_back_whole() -> None:
    with node(config(host=64)) as (server, endpoint), ClientProcess(endpoint, "storing") as victim:
        victim.signal(signal.SIGSTOP)
        flood(server, NAME)
        with connect(endpoint) as other:
            assert until(lambda: len(server.status().clients) == 2)
            in_time(lambda: store(other, SmallEngine(other.geometry), 50))
            victim.signal(signal.SIGCONT)
            assert victim.go_on() == 0, "its store is lost"
            assert until(lambda: is_whole(other)), "the earlier connection of a living process keeps what it had"
            assert until(lambda: [one.name for one in server.status().clients].count(NAME) == 1)
            assert other.lookup(other.sequence(tokens(BLOCKS, seed=WRITTEN_SEED))).num_blocks == 0


def test_a_node_that_was_stopped_for_long_keeps_nothing_of_the_connections_that_were_given_up(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=64)) as process, connect(endpoint, name=NAME) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(BLOCKS, seed=1))
        begun, gate = threading.Event(), threading.Event()
        held = client.store(sequence, HeldBlocks(engine.fill(sequence), begun, gate))  # type: ignore[arg-type]
        assert begun.wait(WAIT_S)
        process.signal(signal.SIGSTOP)
        time.sleep(0.1)  # until its last thread stands
        assert client.lookup(sequence).num_blocks == 0
        assert not is_connected(client)
        gate.set()
        statuses = held.wait(WAIT_S).statuses
        assert set(statuses) == {BlockStatus.IO_ERROR}
        time.sleep(0.5)
        process.signal(signal.SIGCONT)
        assert until(lambda: is_connected(client))
        assert until(lambda: is_whole(client)), client.stats().tiers


def test_a_forked_child_of_a_client_does_not_keep_a_closed_ones_place() -> None:
    with node(config(host=16)) as (server, endpoint):
        client = connect(endpoint, name=NAME)
        child = os.fork()
        if child == 0:
            time.sleep(WAIT_S)
            os._exit(0)
        client.close()
        try:
            assert until(lambda: not server.status().clients, 2.0)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
