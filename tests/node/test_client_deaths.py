"""A node that is killed, stopped, or comes back: its clients miss, never hang, never get a wrong byte, and find it again."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.node_client import WAIT_S, NodeProcess, held_here, meeting_place, node, num_files, until
from tests.helpers.small_engine import SmallEngine, config, tokens
from tiercel import BlockStatus, DeadlineError, NodeClient, Outcome, StaleTicketError, connect
from tiercel.layout import EngineBlocks
from tiercel.transfer import EngineSide


@pytest.fixture
def endpoint() -> Iterator[str]:
    with meeting_place() as place:
        yield place


def is_back(client: NodeClient) -> bool:
    """Whether the client has a node, as its memory says."""
    return bool(client.shared_memory) and client._keeper.link.alive


def store(client: NodeClient, engine: SmallEngine, seed: int, num_blocks: int = 8) -> None:
    sequence = client.sequence(tokens(num_blocks, seed=seed))
    assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok


def test_when_the_node_is_killed_everything_misses_within_a_second_and_its_memory_is_let_go(
    tmp_path: Path, endpoint: str
) -> None:
    with NodeProcess(endpoint, config(tmp_path, host=32, disk=64)) as process, connect(endpoint) as client:
        engine = SmallEngine(client.geometry)
        store(client, engine, 1)
        sequence = client.sequence(tokens(8, seed=1))
        lookup = client.lookup(sequence)
        process.kill()
        killed_at = time.monotonic()
        assert client.lookup(sequence).num_blocks == 0
        assert set(client.load(lookup, engine.blocks(0, 8)).wait(1).statuses) == {BlockStatus.MISSING}
        stored = client.store(sequence, engine.blocks(0, 8)).wait(1)
        assert set(stored.statuses) == {BlockStatus.NO_SPACE}
        assert client.prefetch(sequence).wait(1).num_blocks == 0
        assert not client.settle(0.1)
        with pytest.raises(DeadlineError, match="nothing was forgotten"):
            client.reset()
        assert time.monotonic() - killed_at < 1
        status = client.stats()
        assert status.activity.counters["fallbacks"]["node_gone"] >= 2
        # Noted once for everybody, by the thread that keeps the connection.
        assert until(lambda: any("is gone" in note for note in client.stats().notes))
        assert until(lambda: not held_here("tiercel-arena"))


def test_a_killed_node_that_comes_back_is_found_with_what_it_had_on_disk(tmp_path: Path, endpoint: str) -> None:
    settings = config(tmp_path, host=32, disk=64)
    with NodeProcess(endpoint, settings) as first, connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
        store(client, engine, 1)
        before = client.lookup(sequence)
        assert before.num_blocks == 8
        first.kill()
        assert until(lambda: not is_back(client))
        early = client.sequence(tokens(8, seed=1))  # made without a node
        with NodeProcess(endpoint, settings):
            assert until(lambda: is_back(client))
            with pytest.raises(StaleTicketError):
                client.load(before, engine.blocks(0, 8))
            for known in (sequence, early):
                engine.poison()
                assert client.load(known, engine.blocks(0, 8)).wait(WAIT_S).num_blocks_ok == 8
                engine.check(known, 8)
            store(client, engine, 2)
            assert until(lambda: all(tier.num_pinned == 0 for tier in client.stats().tiers))


def test_while_the_node_is_gone_blocks_on_a_gpu_miss_though_nothing_is_pinned_any_more(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=32)) as process, connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
        store(client, engine, 1)
        lookup = client.lookup(sequence)
        process.kill()
        assert until(lambda: not is_back(client) and not held_here("tiercel-arena"))
        engine.memory.device = "cuda:0"
        assert set(client.load(lookup, engine.blocks(0, 8)).wait(1).statuses) == {BlockStatus.MISSING}
        assert set(client.store(sequence, engine.blocks(0, 8)).wait(1).statuses) == {BlockStatus.NO_SPACE}
        assert lookup.num_blocks == 8


def test_a_store_that_waits_for_the_engines_pass_can_be_cancelled_meanwhile(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = threading.Event()
    with NodeProcess(endpoint, config(host=32)), connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
        monkeypatch.setattr(client.devices, "reach", lambda blocks: EngineSide(blocks, ready=passed.wait))
        late = client.store(sequence, engine.fill(sequence))
        time.sleep(0.2)
        assert not late.done
        started = time.monotonic()
        late.cancel()
        assert late.wait(0).outcome is Outcome.CANCELLED
        assert time.monotonic() - started < 1
        again = client.store(sequence, engine.fill(sequence))
        time.sleep(0.1)
        assert not again.done
        passed.set()
        assert again.wait(WAIT_S).ok


class HeldSource:
    """Engine blocks whose copy waits for a gate."""

    addresses = None

    def __init__(self, blocks: EngineBlocks, begun: threading.Event, gate: threading.Event) -> None:
        self.blocks, self.begun, self.gate = blocks, begun, gate
        self.memory, self.num_blocks = blocks.memory, blocks.num_blocks

    def gather(self, targets: object) -> None:
        self.begun.set()
        self.gate.wait(WAIT_S)
        self.blocks.gather(targets)  # type: ignore[arg-type]

    def slice(self, start: int, stop: int) -> "HeldSource":
        return HeldSource(self.blocks.slice(start, stop), self.begun, self.gate)


def test_tickets_resolve_when_the_node_dies_but_not_before_their_copies_end(endpoint: str) -> None:
    begun, gate = threading.Event(), threading.Event()
    with NodeProcess(endpoint, config(host=32)) as process, connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
        ticket = client.store(sequence, HeldSource(engine.fill(sequence), begun, gate))  # type: ignore[arg-type]
        assert begun.wait(WAIT_S)
        process.kill()
        time.sleep(0.5)
        assert not ticket.done, "its source is still read"
        gate.set()
        assert ticket.wait(WAIT_S).num_blocks_ok == 0


def test_a_stopped_node_costs_a_ticket_its_deadline_and_a_lookup_two_seconds_once(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=32)) as process, connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
        begun, gate = threading.Event(), threading.Event()
        held = client.store(sequence, HeldSource(engine.fill(sequence), begun, gate), timeout_s=1.0)  # type: ignore[arg-type]
        assert begun.wait(WAIT_S)
        process.signal(signal.SIGSTOP)
        gate.set()
        started = time.monotonic()
        result = held.wait(WAIT_S)
        assert result.outcome is Outcome.DEADLINE
        assert time.monotonic() - started < 3
        started = time.monotonic()
        assert client.lookup(sequence).num_blocks == 0
        assert time.monotonic() - started < 4
        started = time.monotonic()
        for _ in range(20):
            assert client.lookup(sequence).num_blocks == 0
            assert client.store(sequence, engine.blocks(0, 8)).wait(1).num_blocks_ok == 0
        assert time.monotonic() - started < 1, "a node that does not answer is not asked again and again"
        process.signal(signal.SIGCONT)
        assert until(lambda: is_back(client))
        store(client, engine, 2)
        engine.check(client.sequence(tokens(8, seed=2)), 8)


def test_cancelling_while_the_node_is_stopped_is_bounded(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=32)) as process, connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
        begun, gate = threading.Event(), threading.Event()
        held = client.store(sequence, HeldSource(engine.fill(sequence), begun, gate))  # type: ignore[arg-type]
        assert begun.wait(WAIT_S)
        process.signal(signal.SIGSTOP)
        gate.set()
        started = time.monotonic()
        held.cancel()
        assert held.wait(0).outcome is Outcome.CANCELLED
        assert time.monotonic() - started < 2
        client.close()
        assert time.monotonic() - started < 8


def test_asyncio_waits_and_done_callbacks_end_with_the_node(endpoint: str) -> None:
    async def main(client: NodeClient, process: NodeProcess) -> None:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
        assert (await client.store(sequence, engine.fill(sequence))).ok
        begun, gate = threading.Event(), threading.Event()
        other = client.sequence(tokens(8, seed=2))
        ticket = client.store(other, HeldSource(engine.fill(other), begun, gate))  # type: ignore[arg-type]
        called = threading.Event()
        ticket.add_done_callback(called.set)
        assert await asyncio.to_thread(begun.wait, WAIT_S)
        process.kill()
        gate.set()
        assert (await asyncio.wait_for(ticket, WAIT_S)).num_blocks_ok == 0
        assert called.wait(1)

    with NodeProcess(endpoint, config(host=32)) as process, connect(endpoint) as client:
        asyncio.run(main(client, process))


def test_a_client_outlives_many_nodes_and_keeps_no_thread_file_or_byte_of_theirs(endpoint: str) -> None:
    with NodeProcess(endpoint, config(host=32)) as process:
        client = connect(endpoint)
        engine = SmallEngine(client.geometry)
        store(client, engine, 0)
        process.kill()
    assert until(lambda: not is_back(client) and not held_here("tiercel-arena"))
    time.sleep(0.2)  # its threads and files go a moment later
    files, threads = num_files(), threading.active_count()
    for seed in range(1, 4):
        with NodeProcess(endpoint, config(host=32)):
            assert until(lambda: is_back(client))
            store(client, engine, seed)
        assert until(lambda: not is_back(client) and not held_here("tiercel-arena"))
    assert until(lambda: (num_files(), threading.active_count()) == (files, threads))
    client.close()


def test_a_node_that_ends_in_order_is_gone_at_once() -> None:
    with node(config(host=16)) as (server, endpoint), connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(4, seed=1))
        assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
        server.close()
        assert client.lookup(sequence).num_blocks == 0
        assert client.load(sequence, engine.blocks(0, 4)).wait(1).num_blocks == 0
