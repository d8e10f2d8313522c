"""A node's door for other machines: who gets in, what may be asked, and what a bad peer cannot do."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq

from tests.helpers.remote_node import STATUS, TOKENS_PER_BLOCK, AskedNode, made_keys, open_door
from tiercel import cli
from tiercel.errors import CacheClosedError, ConfigError, DeadlineError, ThrottledError, TiercelError
from tiercel.hashing import Sequence, root_key
from tiercel.node.calls import CountHits, PrefetchKeys, Store
from tiercel.node.codec import Answer, Call, encode
from tiercel.node.joining import Hello
from tiercel.node.remote import ClientKeys, DoorLimits, RemoteDoor, RemoteNode, read_client_keys
from tiercel.node.remote.keys import make_client_keys, make_server_keys

TOKENS = np.arange(100, dtype=np.int32)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return made_keys(tmp_path / "keys")


@pytest.fixture
def node() -> AskedNode:
    return AskedNode()


@pytest.fixture
def door(keys: Path, node: AskedNode) -> Iterator[RemoteDoor]:
    with open_door(keys, node=node) as door:
        yield door


def client_of(door: RemoteDoor, keys: Path, name: str, timeout_s: float = 5.0, **more: int) -> RemoteNode:
    return RemoteNode(door.endpoint, read_client_keys(keys / f"{name}.client.json"), timeout_s=timeout_s, **more)


def test_hits_are_counted_by_keys_that_the_client_hashes_itself(door: RemoteDoor, keys: Path, node: AskedNode) -> None:
    expected = Sequence(root_key(bytes(32), "a"), TOKENS_PER_BLOCK)
    expected.extend(TOKENS)
    with client_of(door, keys, "a") as client:
        assert client.count_hits(TOKENS, "a") == 96
        assert client.prefetch(TOKENS, "a", within_s=2.0) == 96
    calls = [call for _, _, call in node.asked]
    assert CountHits("a", expected.keys().tobytes()) in calls
    assert PrefetchKeys("a", expected.keys().tobytes(), 2.0) in calls
    assert {(name, namespaces) for name, namespaces, _ in node.asked} == {("a", frozenset({"a"}))}


def test_a_long_prompt_is_asked_about_by_its_beginning(door: RemoteDoor, keys: Path) -> None:
    with client_of(door, keys, "ops") as client:
        assert client.count_hits(np.zeros(200_000, np.int32)) == 4096 * TOKENS_PER_BLOCK


def test_status_and_reset_are_answered_to_keys_that_may(door: RemoteDoor, keys: Path) -> None:
    with client_of(door, keys, "ops") as client:
        assert client.status() == STATUS
        client.reset()
        assert client.hit_curve() == []


def test_the_command_line_shows_a_node_on_another_machine(
    door: RemoteDoor, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["node", "status", "--endpoint", f"tcp://127.0.0.1:{door.endpoint.rpartition(':')[2]}"]
    assert cli.main([*words, "--keys", str(keys / "a.client.json")]) == 0
    shown = capsys.readouterr().out
    assert "moves under way: load 2" in shown
    assert "pid 4242" in shown
    assert cli.main(words) == 2
    assert "give --keys FILE, the NAME.client.json that `tiercel node keygen" in capsys.readouterr().err


def test_other_namespaces_and_rights_are_refused_and_the_node_is_not_asked(
    door: RemoteDoor, keys: Path, node: AskedNode
) -> None:
    with client_of(door, keys, "a") as client:
        for namespace in ("b", "", "there is no such namespace"):
            with pytest.raises(PermissionError, match="bound to other namespaces"):
                client.count_hits(TOKENS, namespace)
        with pytest.raises(PermissionError, match="right 'reset'"):
            client.reset()
    with client_of(door, keys, "blind") as client, pytest.raises(PermissionError, match="right 'status'"):
        client.status()
    assert node.asked == []
    assert door.counts.declined == 5


def test_a_key_that_is_not_listed_gets_no_answer(door: RemoteDoor, keys: Path, tmp_path: Path, node: AskedNode) -> None:
    make_server_keys(tmp_path / "other")
    make_client_keys(tmp_path / "other", "ops")
    stranger = read_client_keys(tmp_path / "other" / "ops.client.json")
    told = ClientKeys(
        "ops", stranger.public_key, read_client_keys(keys / "ops.client.json").server_key, stranger.secret_key
    )
    with (
        RemoteNode(door.endpoint, told, timeout_s=0.4) as client,
        pytest.raises(DeadlineError, match="among the clients"),
    ):
        client.status()
    assert door.counts.refused >= 1
    assert node.asked == []


def test_a_client_does_not_talk_to_a_node_with_another_key(keys: Path, tmp_path: Path, node: AskedNode) -> None:
    made_keys(tmp_path / "other")
    with (
        open_door(tmp_path / "other", node=node) as impostor,
        client_of(impostor, keys, "ops", timeout_s=0.4) as client,
        pytest.raises(DeadlineError),
    ):
        client.status()
    assert node.asked == []


@pytest.mark.parametrize("mechanism", ["null", "plain"])
def test_a_peer_without_curve_is_cut(door: RemoteDoor, node: AskedNode, mechanism: str) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        if mechanism == "plain":
            peer.setsockopt_string(zmq.PLAIN_USERNAME, "ops")
            peer.setsockopt_string(zmq.PLAIN_PASSWORD, "ops")
        peer.connect(door.endpoint)
        peer.send_multipart([bytes(8), b"x"])
        assert peer.poll(300) == 0
    assert node.asked == []


def test_a_client_is_added_and_shut_out_while_the_node_runs(door: RemoteDoor, keys: Path) -> None:
    _, listed = make_client_keys(keys, "late")
    with client_of(door, keys, "late") as client:
        assert client.status() == STATUS
        listed.unlink()
        with pytest.raises(PermissionError, match="not listed any more"):
            client.status()


def raw_client(context: "zmq.Context[zmq.Socket[bytes]]", door: RemoteDoor, keys: Path) -> "zmq.Socket[bytes]":
    told = read_client_keys(keys / "ops.client.json")
    peer = context.socket(zmq.DEALER)
    peer.setsockopt(zmq.LINGER, 0)
    peer.setsockopt_string(zmq.CURVE_SERVERKEY, told.server_key)
    peer.setsockopt_string(zmq.CURVE_PUBLICKEY, told.public_key)
    peer.setsockopt_string(zmq.CURVE_SECRETKEY, told.secret_key)
    peer.connect(door.endpoint)
    return peer


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"number"],
        [bytes(8), b""],
        [bytes(8), b"TN\x02\x01"],
        [bytes(8), b"TN\x01\x01\x91\xa9AskStatus"],
        [bytes(8), b"TN\x02\x11" + bytes(64)],
        [bytes(8), encode(Hello("x", None))],
        [bytes(8), encode(Store(1, 1, 0, 1, 50, 1.0, False, None))],
        [bytes(8), encode(CountHits("", b"15 bytes of keys"[:15]))],
        [bytes(8), encode(CountHits("c", bytes(16)))],
        [bytes(8), encode(PrefetchKeys("c", bytes(16), 1.0))],
        [bytes(8), b"x", b"y"],
        [bytes(8)] * 100,
    ],
)
def test_what_is_no_call_of_a_remote_client_is_answered_with_an_error(
    door: RemoteDoor, keys: Path, node: AskedNode, parts: list[bytes]
) -> None:
    with zmq.Context() as context, raw_client(context, door, keys) as peer:
        peer.send_multipart(parts)
        assert peer.poll(3000)
        number, answer = peer.recv_multipart()
        assert len(number) == 8
        assert b"\xa6Failed" in answer
    assert node.asked == []


def test_a_message_that_is_too_long_cuts_its_connection_alone(door: RemoteDoor, keys: Path, node: AskedNode) -> None:
    with zmq.Context() as context, raw_client(context, door, keys) as peer, client_of(door, keys, "a") as client:
        client.status()
        peer.send_multipart([bytes(8), bytes((128 << 10) + 1)])
        assert peer.poll(300) == 0
        assert client.status() == STATUS
    assert len(node.asked) == 2


def test_calls_beyond_the_limit_are_throttled_and_other_clients_are_not(keys: Path) -> None:
    free, asked = threading.Event(), threading.Semaphore(0)

    class SlowNode(AskedNode):
        def __call__(self, client: str, namespaces: frozenset[str], call: Call) -> Answer:
            asked.release()
            if client == "a":
                assert free.wait(20)
            return super().__call__(client, namespaces, call)

    limits = DoorLimits(calls_max=2, threads=3)
    with open_door(keys, limits, SlowNode()) as door, client_of(door, keys, "a", 20.0) as slow:
        callers = [threading.Thread(target=slow.status) for _ in range(2)]
        for caller in callers:
            caller.start()
        assert all(asked.acquire(timeout=10) for _ in callers)
        with pytest.raises(ThrottledError, match="2 calls under way"):
            slow.status()
        with client_of(door, keys, "ops") as other:
            assert other.status() == STATUS
        free.set()
        for caller in callers:
            caller.join(20)
        assert slow.status() == STATUS
        assert door.counts.throttled == 1


def test_connections_beyond_the_limit_are_refused(keys: Path) -> None:
    with open_door(keys, DoorLimits(connections_max=1)) as door, client_of(door, keys, "ops") as first:
        first.status()
        with client_of(door, keys, "a", timeout_s=0.4) as second, pytest.raises(DeadlineError):
            second.status()
        assert first.status() == STATUS


def test_a_peer_that_never_ends_its_handshake_is_cut(keys: Path) -> None:
    with open_door(keys, DoorLimits(handshake_s=0.2)) as door:
        port = int(door.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            while peer.recv(4096):
                pass


@pytest.mark.parametrize(
    ("error", "kind"), [(ThrottledError, ThrottledError), (ValueError, ValueError), (KeyError, RuntimeError)]
)
def test_what_the_node_raises_is_raised_at_the_client(
    keys: Path, error: type[Exception], kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    class FailingNode(AskedNode):
        def __call__(self, client: str, namespaces: frozenset[str], call: Call) -> Answer:
            raise error("half a pair: \ud800" + "x" * 9000)

    with open_door(keys, node=FailingNode()) as door, client_of(door, keys, "ops") as client:
        for _ in range(2):
            with pytest.raises(kind):
                client.status()
    assert len(caplog.records) == (2 if error is KeyError else 0)


def test_a_client_comes_back_by_itself_when_the_node_does(keys: Path) -> None:
    with open_door(keys) as door:
        endpoint = door.endpoint
        client = client_of(door, keys, "ops")
        client.status()
    with client:
        with pytest.raises(DeadlineError):
            client.status(timeout_s=0.2)
        with open_door(keys, endpoint=endpoint):
            assert client.status(timeout_s=10.0) == STATUS


def test_what_was_not_sent_by_its_deadline_is_never_sent(keys: Path, node: AskedNode) -> None:
    with open_door(keys) as door:
        endpoint = door.endpoint
        client = client_of(door, keys, "ops")
    with client:
        with pytest.raises(DeadlineError):
            client.reset(timeout_s=0.2)
        with open_door(keys, endpoint=endpoint, node=node):
            client.status(timeout_s=10.0)
    assert [type(call).__name__ for _, _, call in node.asked] == ["AskStatus"]


def test_a_closed_client_says_so_and_a_call_that_waits_for_another_has_its_deadline(keys: Path) -> None:
    with open_door(keys) as door:
        client = client_of(door, keys, "ops", calls_max=1)
        client.status()
        client.close()
        client.close()
        with pytest.raises(CacheClosedError):
            client.status()


def test_tcp_without_keys_is_refused_with_the_remedy(node: AskedNode) -> None:
    with pytest.raises(ConfigError, match="tiercel node keygen --directory"):
        RemoteDoor("tcp://127.0.0.1:*", None, DoorLimits(), node)
    with pytest.raises(ConfigError, match="tiercel node keygen --directory"):
        RemoteNode("tcp://127.0.0.1:1", None)


@pytest.mark.parametrize(
    "endpoint", ["ipc:///tmp/x", "tcp://", "tcp://a", "tcp://a:99999", "tcp://a:1/x", "127.0.0.1:5", ""]
)
def test_an_endpoint_that_is_none_of_tcp_is_refused(keys: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="must be tcp://HOST:PORT"):
        RemoteNode(endpoint, read_client_keys(keys / "ops.client.json"))


def test_an_address_that_is_taken_is_told(keys: Path, door: RemoteDoor) -> None:
    with pytest.raises(OSError, match="Address already in use: 'tcp://"), open_door(keys, endpoint=door.endpoint):
        pass


def test_a_door_that_nobody_uses_costs_nothing(keys: Path) -> None:
    with open_door(keys) as door, client_of(door, keys, "ops") as client:
        client.status()
        threads = psutil.Process().num_threads()
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.1
        assert psutil.Process().num_threads() <= threads  # one of an earlier test's may end meanwhile


def test_without_pyzmq_the_rest_of_the_node_works_and_tcp_names_what_to_install() -> None:
    code = """
import sys
sys.modules["zmq"] = None
import tiercel.node.codec
from tiercel.errors import ConfigError
try:
    import tiercel.node.remote
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tiercel[node]'" in done.stdout


def test_the_door_leaves_no_thread_and_no_descriptor(keys: Path) -> None:
    def counts() -> tuple[int, int]:
        process = psutil.Process()
        return process.num_threads(), process.num_fds()

    def once() -> tuple[int, int]:
        with open_door(keys) as door, client_of(door, keys, "ops") as client:
            client.status()
        return counts()

    once()
    first = last = once()
    for _ in range(5):
        last = once()
    stop_at = time.monotonic() + 5.0
    while last > first and time.monotonic() < stop_at:  # a joined thread is a moment longer in /proc
        time.sleep(0.05)
        last = counts()
    assert last <= first


def test_an_answer_of_a_stranger_kind_is_an_error(keys: Path) -> None:
    class OddNode(AskedNode):
        def __call__(self, client: str, namespaces: frozenset[str], call: Call) -> Answer:
            return STATUS

    with open_door(keys, node=OddNode()) as door, client_of(door, keys, "ops") as client:
        expected = pytest.raises(TiercelError, match="answered Reset with Status")
        with expected:
            client.reset()
