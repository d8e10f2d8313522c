"""What a client of a node does that a cache in process does not: others' blocks, namespaces, costs from the board, leaving."""

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.node_client import WAIT_S, held_here, meeting_place, node, num_files, until
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import (
    Cache,
    CacheClosedError,
    ConfigError,
    DeadlineError,
    ModelConfig,
    NodeClient,
    Outcome,
    connect,
)
from tiercel.hashing import root_key
from tiercel.node.endpoint import parse_endpoint
from tiercel.node.namespaces import write_secret
from tiercel.node.server import NodeServer


def pinned(client: NodeClient) -> int:
    return sum(tier.num_pinned for tier in client.stats().tiers)


def test_what_one_client_stored_another_loads(served: tuple[NodeServer, str], client: NodeClient) -> None:
    engine, prompt = SmallEngine(client.geometry), tokens(20, seed=1)
    assert client.store(client.sequence(prompt), engine.fill(client.sequence(prompt))).wait(WAIT_S).ok
    with connect(served[1], name="second", model=MODEL) as other:
        theirs, sequence = SmallEngine(other.geometry), other.sequence(prompt)
        assert other.load(sequence, theirs.blocks(40, 60)).wait(WAIT_S).num_blocks_ok == 20
        theirs.check(sequence, 20, at=40)
        assert other.lookup(client.sequence(prompt)).num_blocks == 20, "an equal root makes equal keys"


def test_many_threads_use_one_client(client: NodeClient) -> None:
    engine = SmallEngine(client.geometry)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                sequence = client.sequence(tokens(4, seed=100 * number + turn))
                at = 20 * number
                assert client.store(sequence, engine.fill(sequence, at=at)).wait(WAIT_S).ok
                assert client.load(sequence, engine.blocks(at + 8, at + 12)).wait(WAIT_S).num_blocks_ok == 4
                engine.check(sequence, 4, at=at + 8)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not failures
    assert pinned(client) == 0


@pytest.mark.parametrize(("policy", "prefill_s", "expected"), [("never", 1.0, 0), ("auto", 10.0, 8), ("auto", 1e-9, 0)])
def test_what_is_worth_loading_follows_the_costs_that_the_node_learnt(
    policy: str, prefill_s: float, expected: int
) -> None:
    with node(config(host=16, load_policy=policy)) as (server, endpoint), connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=110))
        assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
        for _ in range(20):
            client.observe_prefill(cached_tokens=0, computed_tokens=128, seconds=prefill_s)
        assert until(lambda: server.cache.costs().num_prefills == 20)

        def decided() -> bool:
            with client.lookup(sequence) as lookup:
                assert lookup.matched_blocks == 8
                return lookup.num_blocks == expected

        assert until(decided)


def test_a_lookup_of_an_earlier_time_gives_its_pins_back_wherever_it_ends(client: NodeClient) -> None:
    engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=2))
    assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
    kept = [client.lookup(sequence) for _ in range(3)]
    assert pinned(client) == 8
    kept.pop().release()
    kept.pop()
    gc.collect()
    assert pinned(client) == 8
    assert client.load(kept.pop(), engine.blocks(0, 8)).wait(WAIT_S).ok
    gc.collect()
    assert pinned(client) == 0


def test_a_sequence_that_the_node_has_dropped_is_sent_again() -> None:
    with node(config(host=64, node_sequences_max=2)) as (_, endpoint), connect(endpoint) as client:
        engine = SmallEngine(client.geometry)
        sequences = [client.sequence(tokens(4, seed=seed)) for seed in range(6)]
        for _ in range(2):
            for number, sequence in enumerate(sequences):
                assert client.store(sequence, engine.fill(sequence, at=4 * number)).wait(WAIT_S).ok
                assert client.lookup(sequence).num_blocks == 4


def test_lookups_beyond_what_the_node_holds_open_find_nothing_and_are_counted() -> None:
    with node(config(host=64, node_lookups_max=4)) as (_, endpoint), connect(endpoint) as client:
        engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(4, seed=1))
        assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
        kept = [client.lookup(sequence) for _ in range(6)]
        assert [lookup.num_blocks for lookup in kept] == [4, 4, 4, 4, 0, 0]
        assert client.stats().activity.throttled["lookups"] == 2
        for lookup in kept:
            lookup.release()
        assert until(lambda: client.lookup(sequence).num_blocks == 4)


def test_a_namespace_that_a_client_may_not_use_is_refused_by_name(tmp_path: Path) -> None:
    write_secret(tmp_path / "secret")
    bound = {"trusted": ["*"], "*": ["", "shared"]}
    settings = config(host=16, node_namespaces=bound, node_secret_file=str(tmp_path / "secret"))
    with node(settings) as (_, endpoint):
        with connect(endpoint, name="guest") as guest:
            assert guest.lookup(guest.sequence(tokens(1, seed=1), namespace="shared")).num_blocks == 0
            with pytest.raises(ConfigError, match=r"'guest' may not use namespace 'private'.*add it there"):
                guest.sequence(namespace="private")
        with connect(endpoint, name="trusted") as trusted:
            engine, sequence = SmallEngine(trusted.geometry), trusted.sequence(tokens(4, seed=1), namespace="private")
            assert trusted.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
            assert trusted.lookup(sequence).num_blocks == 4
            assert sequence.root != root_key(trusted._fingerprint, "private"), "nobody can compute it"


def test_loads_by_layer_are_refused(client: NodeClient) -> None:
    engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(2, seed=1))
    assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
    with pytest.raises(ValueError, match="by_layer"):
        client.load(sequence, engine.blocks(0, 2), by_layer=True)
    assert pinned(client) == 0


def test_a_sequence_made_by_hand_is_refused_unless_its_namespace_is_known(client: NodeClient) -> None:
    own = client.sequence(tokens(2, seed=1))
    by_hand = type(own)(bytes(16), own.tokens_per_block, tokens(2, seed=1), origin=own.origin)
    with pytest.raises(ValueError, match="by hand"):
        client.lookup(by_hand)
    alike = type(own)(own.root, own.tokens_per_block, tokens(2, seed=1), origin=own.origin)
    assert client.lookup(alike).num_blocks == 0


def test_a_cancelled_store_touches_its_source_no_more(client: NodeClient) -> None:
    engine = SmallEngine(client.geometry)
    for seed in range(40):
        sequence = client.sequence(tokens(16, seed=seed))
        ticket = client.store(sequence, engine.fill(sequence))
        ticket.cancel()
        assert ticket.done
        engine.poison()  # a copy that came now would store poison
        assert ticket.wait(0).outcome in (Outcome.DONE, Outcome.CANCELLED)
        count = client.load(sequence, engine.blocks(0, 16)).wait(WAIT_S).num_blocks_ok
        engine.check(sequence, count)


def test_waiting_for_a_node_ends_in_time_and_says_so() -> None:
    with meeting_place() as endpoint:
        with pytest.raises(DeadlineError, match="no node listened at ipc://"):
            connect(endpoint, wait_s=0.1)
        opened: list[NodeClient] = []
        waiting = threading.Thread(target=lambda: opened.append(connect(endpoint, wait_s=WAIT_S)))
        waiting.start()
        with NodeServer(MODEL, config(host=16), parse_endpoint(endpoint)):
            waiting.join(WAIT_S)
            assert opened
            opened[0].close()


def test_a_node_of_another_model_and_an_endpoint_of_another_kind_are_refused(served: tuple[NodeServer, str]) -> None:
    other = ModelConfig(num_layers=2, num_kv_heads=2, head_size=16, dtype="float16", model_id="another")
    with pytest.raises(ConfigError, match="model_id='another'"):
        connect(served[1], model=other)
    for endpoint in ("tcp://localhost:5555", "ipc://relative", "/tmp"):
        with pytest.raises(ConfigError):
            connect(endpoint)
    with pytest.raises(ValueError, match="name of 300 characters"):
        connect(served[1], name="n" * 300)


def test_closing_leaves_no_thread_no_file_and_no_mapping(served: tuple[NodeServer, str]) -> None:
    before, threads, maps = num_files(), threading.active_count(), len(held_here("tiercel-arena"))
    client = connect(served[1])
    engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(8, seed=1))
    ticket = client.store(sequence, engine.fill(sequence))
    lookup = client.lookup(sequence)
    client.close()
    client.close()
    assert ticket.done
    lookup.release()
    with pytest.raises(CacheClosedError):
        client.lookup(sequence)
    assert until(lambda: (num_files(), threading.active_count()) == (before, threads))
    del client, lookup
    gc.collect()
    assert until(lambda: len(held_here("tiercel-arena")) == maps)
    assert until(lambda: all(tier.num_pinned == tier.num_writing == 0 for tier in served[0].cache.stats().tiers))


def test_a_forked_child_may_not_use_the_client_and_disturbs_nobody(client: NodeClient) -> None:
    engine, sequence = SmallEngine(client.geometry), client.sequence(tokens(4, seed=1))
    assert client.store(sequence, engine.fill(sequence)).wait(WAIT_S).ok
    lookup = client.lookup(sequence)
    child = os.fork()
    if not child:
        outcome = 1
        try:
            client.stats()
            client.note("from a child", kind="test")
            lookup.release()
            client.close()
            client.lookup(sequence)
        except CacheClosedError:
            outcome = 0
        finally:
            os._exit(outcome)
    assert os.waitpid(child, 0)[1] == 0
    assert client.load(lookup, engine.blocks(10, 14)).wait(WAIT_S).num_blocks_ok == 4
    assert "from a child" not in client.stats().notes


def test_what_a_node_stored_a_cache_in_process_finds(tmp_path: Path) -> None:
    prompt = tokens(12, seed=1)
    with node(config(tmp_path, host=16, disk=64)) as (_, endpoint), connect(endpoint) as client:
        engine = SmallEngine(client.geometry)
        assert client.store(client.sequence(prompt), engine.fill(client.sequence(prompt))).wait(WAIT_S).ok
    with Cache.open(MODEL, config(tmp_path, host=16, disk=64)) as cache:
        engine, sequence = SmallEngine(cache.geometry), cache.sequence(prompt)
        assert cache.load(sequence, engine.memory.blocks(np.arange(12))).wait(WAIT_S).num_blocks_ok == 12
        engine.check(sequence, 12)
