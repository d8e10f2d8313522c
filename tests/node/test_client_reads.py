"""Hits in a node's host memory are read by the client itself: the node is asked neither before nor during it, only after."""

import threading
from functools import partial
from typing import Any

import pytest

from tests.helpers.client_states import HeldBlocks
from tests.helpers.node_client import WAIT_S, node, until
from tests.helpers.small_engine import SmallEngine, config, tokens
from tiercel import BlockStatus, CacheConfig, NodeClient, Outcome, ThrottledError, TierName, connect
from tiercel.cache import ServedCache
from tiercel.costs import TransferCostModel
from tiercel.node.client.reading import HostReads, share_of
from tiercel.node.server import NodeServer
from tiercel.node.server.launching import Launching


@pytest.fixture
def engine(client: NodeClient) -> SmallEngine:
    made = SmallEngine(client.geometry)
    store(client, made, 1)
    return made


def store(client: NodeClient, engine: SmallEngine, seed: int) -> None:
    sequence = client.sequence(tokens(4, seed=seed))
    assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok


def refuse_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*_: object) -> None:
        raise AssertionError("the node was asked for a load")

    monkeypatch.setattr(Launching, "launch", launch)


def host(client: NodeClient) -> Any:
    return next(tier for tier in client.stats().tiers if tier.name == "host")


@pytest.mark.parametrize(
    ("num_blocks", "share"), [(0, 1), (1, 1), (15, 15), (16, 16), (31, 31), (32, 16), (33, 17), (400, 200)]
)
def test_both_threads_copy_a_load_that_is_worth_two_wake_ups(num_blocks: int, share: int) -> None:
    assert share_of(num_blocks, 16) == share


def test_a_hit_in_host_memory_is_loaded_without_asking_the_node(
    client: NodeClient, engine: SmallEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_launches(monkeypatch)
    sequence = client.sequence(tokens(4, seed=1))
    engine.poison()
    result = client.load(sequence, engine.blocks(10, 14)).wait(WAIT_S)
    assert (result.outcome, result.num_blocks_ok) == (Outcome.DONE, 4)
    assert dict(result.blocks_by_tier) == {TierName.HOST: 4}
    engine.check(sequence, 4, at=10)


def test_the_blocks_behind_those_that_the_engine_has_are_read(
    client: NodeClient, engine: SmallEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_launches(monkeypatch)
    sequence = client.sequence(tokens(4, seed=1))
    engine.poison()
    with client.lookup(sequence, engine_tokens=32, limit_tokens=48) as lookup:
        assert (lookup.first_block, lookup.num_blocks) == (2, 1)
        assert client.load(lookup, engine.blocks(20, 21)).wait(WAIT_S).ok
    engine.check(sequence, 1, at=20, first=2)


def test_many_chunks_arrive_whole(served: tuple[NodeServer, str]) -> None:
    with node(config(host=256, transfer_chunk_bytes=8192)) as (_, endpoint), connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(100, seed=3))
        assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
        engine.poison()
        tickets = [client.load(sequence, engine.blocks(at, at + 100)) for at in (0, 100)]
        assert all(ticket.wait(WAIT_S).ok for ticket in tickets)
        engine.check(sequence, 100, at=0)
        engine.check(sequence, 100, at=100)


def test_a_read_is_counted_as_a_load(client: NodeClient, engine: SmallEngine) -> None:
    before = host(client).blocks_read
    assert client.load(client.sequence(tokens(4, seed=1)), engine.blocks(10, 14)).wait(WAIT_S).ok
    assert until(lambda: host(client).blocks_read == before + 4)
    activity = client.stats().activity
    assert [(each.kind, each.outcome) for each in activity.tickets if each.kind == "load"] == [("load", "done")]
    assert [each.source for each in activity.transfers if each.target == "gpu"] == ["host"]


def is_counted(client: NodeClient, num_blocks: int) -> bool:
    return bool(host(client).blocks_read == num_blocks)


@pytest.mark.parametrize("seconds", [5e-324, 1e-200, 1e-12, 3600.0])
def test_a_time_that_no_copy_takes_changes_neither_the_node_nor_its_costs(
    served: tuple[NodeServer, str], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """What a client tells of itself: that of a stopped one goes on, and one may lie."""
    learnt = []
    observe = TransferCostModel.observe
    end_lookup = HostReads._end_lookup

    def lie(self: HostReads, read: Any) -> object:
        read.busy_s = seconds
        return end_lookup(self, read)

    def note(self: TransferCostModel, num_bytes: int, told_s: float) -> None:
        learnt.append(told_s / num_bytes)
        observe(self, num_bytes, told_s)

    monkeypatch.setattr(HostReads, "_end_lookup", lie)
    monkeypatch.setattr(TransferCostModel, "observe", note)
    with connect(served[1]) as client:
        made = SmallEngine(client.geometry)
        store(client, made, 1)
        for _ in range(2):
            before = host(client).blocks_read
            assert client.load(client.sequence(tokens(4, seed=1)), made.blocks(10, 14)).wait(WAIT_S).ok
            assert until(partial(is_counted, client, before + 4))
    assert min(learnt) >= 1e-12, "more than a terabyte a second"


def test_pins_hold_while_a_read_runs_and_end_with_it(client: NodeClient, engine: SmallEngine) -> None:
    begun, gate = threading.Event(), threading.Event()
    target: Any = HeldBlocks(engine.blocks(10, 14), begun, gate)
    ticket = client.load(client.sequence(tokens(4, seed=1)), target)
    assert begun.wait(WAIT_S)
    assert host(client).num_pinned == 4
    gate.set()
    assert ticket.wait(WAIT_S).ok
    assert until(lambda: host(client).num_pinned == 0)


def test_what_is_read_during_a_reset_is_void(client: NodeClient, engine: SmallEngine) -> None:
    begun, gate = threading.Event(), threading.Event()
    target: Any = HeldBlocks(engine.blocks(10, 14), begun, gate)
    ticket = client.load(client.sequence(tokens(4, seed=1)), target)
    assert begun.wait(WAIT_S)
    client.reset()
    store(client, engine, 2)  # into the slots that are being read
    gate.set()
    result = ticket.wait(WAIT_S)
    assert (result.outcome, set(result.statuses.tolist())) == (Outcome.CANCELLED, {int(BlockStatus.CANCELLED)})


def test_a_cancelled_read_gives_its_pins_back(client: NodeClient, engine: SmallEngine) -> None:
    begun, gate = threading.Event(), threading.Event()
    target: Any = HeldBlocks(engine.blocks(10, 14), begun, gate)
    first = client.load(client.sequence(tokens(4, seed=1)), target)
    others = [client.load(client.sequence(tokens(4, seed=1)), target) for _ in range(4)]
    assert begun.wait(WAIT_S)
    others[-1].cancel()
    assert others[-1].wait(WAIT_S).outcome is Outcome.CANCELLED
    gate.set()
    assert first.wait(WAIT_S).ok
    assert all(ticket.wait(WAIT_S).ok for ticket in others[:-1])
    assert until(lambda: host(client).num_pinned == 0)


def test_a_read_that_is_too_late_ends_at_its_deadline(client: NodeClient, engine: SmallEngine) -> None:
    begun, gate = threading.Event(), threading.Event()
    target: Any = HeldBlocks(engine.blocks(10, 14), begun, gate)
    held = [client.load(client.sequence(tokens(4, seed=1)), target) for _ in range(2)]
    late = client.load(client.sequence(tokens(4, seed=1)), engine.blocks(20, 24), timeout_s=0.1)
    assert late.wait(WAIT_S).outcome is Outcome.DEADLINE
    gate.set()
    assert all(ticket.wait(WAIT_S).ok for ticket in held)
    assert until(lambda: host(client).num_pinned == 0)


def test_as_many_reads_may_wait_as_a_queue_takes(served: tuple[NodeServer, str]) -> None:
    with node(config(host=64, transfer_queue_depth_max=8)) as (_, endpoint), connect(endpoint) as client:
        engine = SmallEngine(client.geometry)
        store(client, engine, 1)
        begun, gate = threading.Event(), threading.Event()
        target: Any = HeldBlocks(engine.blocks(10, 14), begun, gate)
        sequence = client.sequence(tokens(4, seed=1))
        tickets = [client.load(sequence, target) for _ in range(8)]
        with client.lookup(sequence) as lookup:
            with pytest.raises(ThrottledError, match="host-load queue has no room for 1 more"):
                client.load(lookup, engine.blocks(20, 24))
            gate.set()
            assert all(ticket.wait(WAIT_S).ok for ticket in tickets)
            assert client.load(lookup, engine.blocks(20, 24)).wait(WAIT_S).ok, "the lookup is the caller's still"


def test_a_hit_that_is_read_may_bring_blocks_to_disk(tmp_path: Any) -> None:
    settings = config(tmp_path, host=64, disk=64, ssd_admission="on_second_hit")
    with node(settings) as (_, endpoint), connect(endpoint) as client:
        engine = SmallEngine(client.geometry)
        store(client, engine, 1)
        for _ in range(3):
            assert client.load(client.sequence(tokens(4, seed=1)), engine.blocks(10, 14)).wait(WAIT_S).ok
        assert until(lambda: {tier.name: tier.num_ready for tier in client.stats().tiers}["disk"] == 4)


def test_where_tenants_share_the_queues_nobody_reads_past_them() -> None:
    shared = CacheConfig(
        num_cpu_blocks=64, tokens_per_block=16, load_policy="always", tenants={"one": {"namespaces": ["a"]}}
    )
    with node(shared) as (server, endpoint), connect(endpoint) as client:
        assert isinstance(server.cache, ServedCache)
        assert server.cache.read_tier is None
        engine = SmallEngine(client.geometry)
        store(client, engine, 1)
        assert client.load(client.sequence(tokens(4, seed=1)), engine.blocks(10, 14)).wait(WAIT_S).ok
