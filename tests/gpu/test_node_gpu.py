"""A node's clients with their blocks on a GPU: each copies its own to and from the node's memory, which it pins for itself."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.helpers.gpu_clients import BLOCKS, MODEL, WAIT_S, GpuClient, GpuRank, Served
from tests.helpers.node_client import NodeProcess, held_here, meeting_place, node, until
from tests.helpers.small_engine import config, tokens
from tests.node.test_dying_clients import left_over
from tiercel import BlockStatus, RankGroup, connect
from tiercel.node.server import NodeServer

HOST = 8 * BLOCKS
SETTINGS = {"host and disk": (HOST, HOST), "host alone": (HOST, 0), "disk alone": (0, HOST)}
TAKEN_BACK_S = 2.0


@pytest.fixture(params=SETTINGS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[NodeServer, str]]:
    """A node with each kind of tiers."""
    host, disk = SETTINGS[request.param]
    with node(config(tmp_path, host=host, disk=disk), MODEL) as started:
        yield started


@pytest.fixture
def in_memory() -> Iterator[tuple[NodeServer, str]]:
    """A node with a host tier."""
    with node(config(host=HOST), MODEL) as started:
        yield started


def test_two_clients_on_one_gpu_get_their_own_and_each_others_bytes_back(served: tuple[NodeServer, str]) -> None:
    server, endpoint = served
    with Served(GpuClient, endpoint, "other") as other:
        mine = GpuClient(endpoint)
        other.wait_made()
        other.tell("store", 2, 0)
        assert mine.store(1) == BLOCKS
        assert other.read() == BLOCKS
        assert mine.client.settle(WAIT_S)
        for seed in (1, 2):
            mine.engine.clear()
            assert mine.load(seed) == (BLOCKS, BLOCKS)
            assert other.ask("load", seed) == (BLOCKS, BLOCKS)
        for seed in range(10, 16):  # both at once, evictions included
            other.tell("store", seed + 100, 0)
            assert mine.store(seed) == BLOCKS
            assert mine.load(seed) == (BLOCKS, BLOCKS)
            assert other.read() == BLOCKS
            assert other.ask("load", seed + 100) == (BLOCKS, BLOCKS)
        assert not any("not pinned" in note for note in mine.client.stats().notes), "the node's memory is pinned here"
        mine.close()
    assert until(lambda: not left_over(server)), left_over(server)


def test_a_store_waits_for_the_pass_that_writes_its_blocks_and_loads_go_ahead_of_it(
    in_memory: tuple[NodeServer, str],
) -> None:
    mine = GpuClient(in_memory[1])
    assert mine.store(1) == BLOCKS
    late = [mine.begin_store(seed, at=0 if seed == 2 else 2 * BLOCKS, busy_s=1.0) for seed in (2, 3)]
    assert mine.client.load(mine.sequence(1), mine.engine.memory.blocks(np.arange(BLOCKS, 2 * BLOCKS))).wait(WAIT_S).ok
    assert not any(ticket.done for ticket in late), "a load waited for stores that wait for the engine"
    assert all(ticket.wait(WAIT_S).num_blocks_ok == BLOCKS for ticket in late)
    assert mine.engine.num_right(1, BLOCKS) == BLOCKS
    for seed in (2, 3):
        assert mine.load(seed) == (BLOCKS, BLOCKS)
    mine.close()


def test_the_nodes_memory_is_pinned_while_a_client_is_there_and_let_go_of_with_it(tmp_path: Path) -> None:
    with meeting_place() as endpoint, NodeProcess(endpoint, config(tmp_path, host=HOST, disk=HOST), MODEL):
        for _ in range(3):
            mine = GpuClient(endpoint)
            pinned, regions = mine.client.devices._pinned, mine.client.shared_memory
            assert pinned is not None
            for region in regions:
                assert pinned.covers(np.array([region.address], np.uint64), region.num_bytes)
            addresses = np.array([region.address for region in regions], np.uint64)
            assert mine.store(1) == BLOCKS
            assert mine.load(1) == (BLOCKS, BLOCKS)
            mine.close()
            assert not pinned.covers(addresses, 4096)
            assert not held_here("tiercel-arena")


@pytest.mark.parametrize("busy_s", [0.0, 1.0])
def test_a_client_killed_during_gpu_copies_leaves_nothing_and_disturbs_nobody(
    in_memory: tuple[NodeServer, str], busy_s: float
) -> None:
    server, endpoint = in_memory
    mine = GpuClient(endpoint)
    for attempt in range(3):
        seed = 100 * attempt
        with Served(GpuClient, endpoint, "victim") as victim:
            victim.wait_made()
            assert victim.ask("store", seed) == BLOCKS
            victim.ask("churn", seed, busy_s)
            victim.signal(signal.SIGKILL)
            killed_at = time.monotonic()
            assert mine.store(seed + 7) == BLOCKS
            assert mine.load(seed + 7) == (BLOCKS, BLOCKS)
            assert until(lambda: not left_over(server), TAKEN_BACK_S), left_over(server)
            assert time.monotonic() - killed_at < TAKEN_BACK_S + 1.0
        for each in (seed, seed + 1):  # the second may have been stored or not, but never in part with other bytes
            loaded, right = mine.load(each)
            assert right >= loaded
        assert mine.load(seed) == (BLOCKS, BLOCKS)
    mine.close()


def test_a_node_killed_during_gpu_loads_costs_misses_and_no_wrong_byte_and_is_found_again(tmp_path: Path) -> None:
    settings = config(tmp_path, host=HOST, disk=HOST)
    with meeting_place() as endpoint:
        with NodeProcess(endpoint, settings, MODEL) as process:
            mine = GpuClient(endpoint)
            assert mine.store(1) == BLOCKS
            assert mine.client.settle(WAIT_S)
            time.sleep(0.5)
            mine.churn(1, 0.3)
            process.kill()
            killed_at = time.monotonic()
            assert mine.client.lookup(mine.sequence(1)).num_blocks == 0
            assert mine.store(2) == 0
            assert time.monotonic() - killed_at < 1.0
            results = [ticket.wait(5.0) for ticket in mine.under_way]
            for result, at in zip(results[1:], (BLOCKS, 2 * BLOCKS), strict=True):
                assert mine.engine.num_right(1, at) >= result.num_blocks_ok
            assert until(lambda: not held_here("tiercel-arena"))
            blocks = mine.engine.memory.blocks(np.arange(BLOCKS))
            stored = mine.client.store(mine.sequence(2), blocks).wait(1)
            assert set(stored.statuses) == {BlockStatus.NO_SPACE}, "what was unpinned is not touched"
        with NodeProcess(endpoint, settings, MODEL):
            assert until(lambda: bool(mine.client.shared_memory) and mine.client.connected)
            mine.engine.clear()
            loaded, right = mine.load(1)
            assert loaded == right == BLOCKS, "what was on disk is not lost"
            assert mine.store(3) == BLOCKS
            assert mine.load(3) == (BLOCKS, BLOCKS)
            mine.close()


@pytest.mark.parametrize("tiers", SETTINGS)
def test_ranks_in_two_processes_share_blocks_through_a_node(tmp_path: Path, tiers: str) -> None:
    host, disk = SETTINGS[tiers]
    place = Path(tempfile.mkdtemp(prefix="tr-"))
    with node(config(tmp_path, host=host, disk=disk), MODEL) as (server, endpoint), connect(endpoint) as client:
        group = RankGroup(client.geometry, client.shared_memory, num_ranks=2, directory=place)
        with Served(GpuRank, place, 0, 2, 3 * BLOCKS) as first, Served(GpuRank, place, 1, 2, 3 * BLOCKS) as second:
            ranks = (first, second)
            for rank in ranks:
                rank.wait_made()
            group.wait_ready(WAIT_S)
            for step, busy_s in enumerate((0.0, 0.3, 0.0), 1):
                sequence = client.sequence(tokens(BLOCKS, seed=step))
                stored = client.store(sequence, group.blocks(np.arange(BLOCKS), after_step=step))
                for rank in ranks:
                    rank.ask("compute", step, step, 0, busy_s)
                assert stored.wait(WAIT_S).num_blocks_ok == BLOCKS
                loaded = client.load(sequence, group.blocks(np.arange(BLOCKS, 2 * BLOCKS), after_step=step))
                assert loaded.wait(WAIT_S).num_blocks_ok == BLOCKS
                assert [rank.ask("num_right", step, BLOCKS) for rank in ranks] == [BLOCKS, BLOCKS]
            os.kill(second.pid, signal.SIGKILL)
            lost = client.load(client.sequence(tokens(BLOCKS, seed=1)), group.blocks(np.arange(BLOCKS), after_step=3))
            assert lost.wait(5.0).num_blocks_ok == 0
            assert until(lambda: all(tier.num_pinned == tier.num_writing == 0 for tier in server.cache.stats().tiers))
        group.close()
