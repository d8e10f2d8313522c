"""The node's hot path against peers that keep no rule: they are cut, and nobody else notices."""

import os
import resource
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.node_front import (
    CLIENT,
    FrontHarness,
    datagram,
    lookup_of,
    opening,
    running_front,
    sequence_of,
    store,
    wait_until,
)
from tiercel._native import NodeCall, NodeFront, NodeFrontLimits
from tiercel.node.codec import decode_for_client
from tiercel.node.joining import Refused
from tiercel.node.protocol import HEADER, Kind

OTHER = 8
KEYS = sequence_of(4).keys().tobytes()
MALFORMED = {
    "empty": b"",
    "short": b"TN",
    "other protocol": b"GET / HTTP/1.1",
    "other version": b"TN\x01\x01hello",
    "no body": HEADER,
    "unknown kind": datagram(0x77),
    "the node's own kind": datagram(Kind.FOUND, bytes(32)),
    "keys without head": datagram(Kind.KEYS, bytes(7)),
    "part of a key": datagram(Kind.KEYS, struct.pack("<2I", 3, 0) + bytes(17)),
    "too many keys": datagram(Kind.KEYS, struct.pack("<2I", 3, 0) + bytes(16 * 4097)),
    "keys behind every sequence": datagram(Kind.KEYS, struct.pack("<2I", 3, 4) + bytes(16)),
    "lookup without head": datagram(Kind.LOOKUP, bytes(19)),
    "lookup with part of a key": lookup_of(3, bytes(15)),
    "part of a lookup's number": datagram(Kind.RELEASE, bytes(9)),
    "part of a sequence's number": datagram(Kind.FORGET, bytes(3)),
    "short root": datagram(Kind.OPEN, bytes(19)),
    "long root": datagram(Kind.OPEN, bytes(21)),
    "foreign root": opening(4, bytes(16)),
    "other root of an open sequence": opening(3, bytes(16)),
    "longer than any": HEADER + bytes(140_000),
}
NOT_MALFORMED = {"keys behind every sequence"}  # other connections' keys may be on their way


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[FrontHarness]:
    with running_front(tmp_path) as made:
        made.join()
        store(made.index, sequence_of(4))
        yield made


def assert_serves(harness: FrontHarness, client: int = OTHER) -> None:
    harness.join(client)
    call = harness.call(client)
    assert call.lookup(sequence_of(4), 3, 0, None, 0, 10.0).matched_blocks == 4
    harness.front.drop_client(client)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_datagram_ends_its_connection_and_changes_nothing_else(harness: FrontHarness, name: str) -> None:
    peer = harness.join(calls=True)
    peer.send(opening(3))
    peer.send(datagram(Kind.KEYS, struct.pack("<2I", 3, 0) + KEYS[:32]))
    wait_until(lambda: harness.front.client_stats(CLIENT)[2] == 2)
    peer.send(MALFORMED[name])
    if name in NOT_MALFORMED:
        peer.send(lookup_of(3, KEYS))
        assert peer.recv(1000)[3] == Kind.FOUND
    else:
        answer = peer.recv(1000)
        assert not answer or isinstance(decode_for_client(answer), Refused)
        assert peer.recv(1000) == b""
        assert harness.wait_for("left")[2] != ""
        assert harness.front.client_stats(CLIENT)[1:3] == (1, 2)
    assert_serves(harness)


def test_nothing_but_messages_is_taken_before_a_connection_is_admitted(harness: FrontHarness) -> None:
    for said in (opening(3), lookup_of(3, KEYS), datagram(Kind.RELEASE), datagram(Kind.FORGET)):
        peer, _ = harness.connect()
        peer.send(said)
        assert "admitted" in str(harness.wait_for("left")[2])


def test_lookups_are_for_call_connections(harness: FrontHarness) -> None:
    peer = harness.join(calls=False)
    peer.send(opening(3))
    peer.send(lookup_of(3, KEYS))
    assert "not for calls" in str(harness.wait_for("left")[2])
    assert harness.num_pinned == 0


def test_another_clients_sequences_and_lookups_are_out_of_reach(harness: FrontHarness) -> None:
    call = harness.call()
    found = call.lookup(sequence_of(4), 3, 0, None, 0, 10.0)
    harness.join(OTHER)
    other = harness.call(OTHER)
    other.send(datagram(Kind.RELEASE, struct.pack("<Q", found.lookup)))
    other.send(datagram(Kind.FORGET, struct.pack("<I", 3)))
    assert other.lookup(sequence_of(4), 3, 4, None, 0, 10.0).state == 1
    assert harness.front.take_match(OTHER, found.lookup) is None
    assert harness.num_pinned == 4


def test_descriptors_that_come_along_are_closed_at_once(harness: FrontHarness) -> None:
    peer, _ = harness.connect()
    reader, writer = os.pipe()
    socket.send_fds(peer, [HEADER + b"take this"], [writer] * 8)
    os.close(writer)
    assert harness.wait_for("message")[2] == b"take this"
    assert os.read(reader, 1) == b"", "the node has opened what it was sent"
    os.close(reader)


def test_a_peer_that_does_not_read_is_cut_and_the_node_never_waits(tmp_path: Path) -> None:
    with running_front(tmp_path, NodeFrontLimits(outbox_bytes=1 << 20)) as harness:
        _, connection = harness.connect()
        started = time.monotonic()
        sent = 0
        while harness.front.send(connection, HEADER + bytes(50_000)):
            sent += 1
        assert 20 < sent < 100
        assert time.monotonic() - started < 5.0
        assert harness.wait_for("left")[2] == "does not read what is sent to it"
        assert harness.front.counts().overflowed == 1


def test_what_waits_in_the_outbox_arrives_in_order_with_its_files(harness: FrontHarness, tmp_path: Path) -> None:
    peer, connection = harness.connect()
    path = tmp_path / "file"
    path.write_bytes(b"shared")
    with path.open("rb") as file:
        for number in range(40):
            assert harness.front.send(connection, HEADER + bytes([number]) * 50_000, [file.fileno()])
    for number in range(40):
        data, fds, _, _ = socket.recv_fds(peer, 60_000, 4)
        assert data == HEADER + bytes([number]) * 50_000
        assert [os.pread(fd, 10, 0) for fd in fds] == [b"shared"]
        for fd in fds:
            os.close(fd)
    assert harness.front.send(connection, HEADER + b"last")
    assert peer.recv(100) == HEADER + b"last"


def test_a_peer_that_says_too_much_is_not_read_until_its_messages_are_taken(tmp_path: Path) -> None:
    with running_front(tmp_path, NodeFrontLimits(inbox_messages=4)) as harness:
        store(harness.index, sequence_of(4))
        peer, connection = harness.connect()
        peer.setblocking(False)
        sent = 0
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + 0.2:
            try:
                peer.send(HEADER + struct.pack("<I", sent) + bytes(30_000))
            except BlockingIOError:
                time.sleep(0.001)
            else:
                sent, quiet_since = sent + 1, time.monotonic()
        assert 4 < sent < 40, "the kernel's buffer and four messages"
        peer.close()
        numbers: list[int] = []
        while len(numbers) < sent:
            body = harness.wait_for("message")[2]
            assert isinstance(body, bytes)
            numbers.append(struct.unpack_from("<I", body)[0])
        assert numbers == list(range(sent))
        assert harness.wait_for("left") == ("left", connection, "closed by the peer")


def test_messages_of_others_keep_nobody_from_looking_up(tmp_path: Path) -> None:
    with running_front(tmp_path, NodeFrontLimits(inbox_bytes=1)) as harness:
        harness.join()
        store(harness.index, sequence_of(4))
        call = harness.call()
        peer, _ = harness.connect()
        for _ in range(4):
            peer.send(HEADER + bytes(1000))
        time.sleep(0.05)
        assert call.lookup(sequence_of(4), 3, 0, None, 0, 10.0).matched_blocks == 4
        for _ in range(4):
            harness.wait_for("message")


def test_connections_beyond_the_limit_are_closed_at_once(tmp_path: Path) -> None:
    with running_front(tmp_path, NodeFrontLimits(connections=3)) as harness:
        kept = [harness.connect()[0] for _ in range(3)]
        for _ in range(20):
            assert harness.dial().recv(10) == b""
        assert harness.front.counts().refused == 20
        kept[0].close()
        harness.wait_for("left")
        assert harness.connect()[1] == 4


def test_many_short_connections_leave_nothing_behind(harness: FrontHarness) -> None:
    before = num_descriptors()
    for number in range(300):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(harness.path)
            if number % 3 == 0:
                peer.send(b"nonsense")
    kinds = [harness.wait_for("left")[0] for _ in range(300)]
    assert len(kinds) == 300
    wait_until(lambda: num_descriptors() == before)
    assert harness.front.counts().connections == 1


def test_an_idle_front_uses_no_processor(harness: FrontHarness) -> None:
    peer, connection = harness.connect()
    harness.front.send(connection, HEADER + b"unread")
    for _ in range(70):
        peer.send(HEADER + b"never taken")
    seconds, switches = zip(*(used_in(0.5) for _ in range(4)), strict=True)
    assert min(seconds) < 0.1
    assert min(switches) < 50, "something wakes up again and again"


def used_in(window_s: float) -> tuple[float, int]:
    """Processor seconds of this process, and how often one of its threads waited, in a while; what ends meanwhile counts, too."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(window_s)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_nvcsw - before.ru_nvcsw)


def test_a_clients_roots_and_the_number_of_clients_are_bounded(tmp_path: Path) -> None:
    with running_front(tmp_path, NodeFrontLimits(clients=1, roots=2)) as harness:
        harness.join()
        harness.front.allow_root(CLIENT, bytes(16))
        with pytest.raises(ValueError, match="root"):
            harness.front.allow_root(CLIENT, bytes([1] * 16))
        _, connection = harness.connect()
        with pytest.raises(ValueError, match="too many"):
            harness.front.admit(connection, OTHER, False)


@pytest.mark.parametrize("limits", [{"keys": 100}, {"sequences": 0}, {"lookups": 0}, {"tokens_per_block": 12}])
def test_limits_that_make_no_sense_are_refused(harness: FrontHarness, limits: dict[str, int]) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        pytest.raises(ValueError, match=next(iter(limits))),
    ):
        NodeFront(listener.fileno(), harness.index, NodeFrontLimits(**limits))


FOUND = datagram(Kind.FOUND, struct.pack("<2IQ4I", 1, 0, 1, 4, 0, 0, 0))
NONSENSE = {
    "no protocol": b"nonsense",
    "part of a head": FOUND[:20],
    "part of a segment": FOUND + bytes(5),
    "fewer segments than it counts": datagram(Kind.FOUND, struct.pack("<2IQ4I", 1, 0, 1, 4, 0, 2, 0) + bytes(12)),
    "fewer slots than it counts": datagram(Kind.FOUND, struct.pack("<2IQ4I", 1, 0, 1, 4, 0, 0, 3) + bytes(8)),
    "another request's": datagram(Kind.FOUND, bytes(32)),
    "another kind": datagram(Kind.KEYS, bytes(32)),
    "a refusal": HEADER + b"\x92\xa7Refused\xd9\x04mood",
    "longer than any": bytes(140_000),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_node_that_answers_nonsense_ends_the_call(name: str) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        there.send(NONSENSE[name])
        call = NodeCall(here.fileno())
        with pytest.raises(OSError, match=r"answer|longer|mood"):
            call.lookup(sequence_of(4), 3, 0, None, 0, 10.0)
        with pytest.raises(OSError, match="closed"):
            call.request(HEADER + b"?", 10.0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_users_process_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder, running_front(Path(folder)) as harness:
        Path(folder).chmod(0o755)
        Path(harness.path).chmod(0o666)
        script = (
            "import socket, sys\n"
            "peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "peer.connect(sys.argv[1])\n"
            "assert peer.recv(10) == b''\n"
        )
        command = ["/usr/bin/env", "python3", "-c", script, harness.path]
        subprocess.run(command, user=65534, check=True, timeout=30, cwd="/")
        assert harness.front.counts().refused == 1
        assert harness.front.next(0.05) == []
