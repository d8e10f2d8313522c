"""The node's hot path: lookups, sequences of keys, and what they leave behind."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.node_front import (
    CLIENT,
    ROOT,
    TOKENS_PER_BLOCK,
    FrontHarness,
    datagram,
    lookup_of,
    opening,
    running_front,
    sequence_of,
    store,
    wait_until,
)
from tiercel._native import NodeCall, NodeFrontLimits, Sequence
from tiercel.node.protocol import HEADER, Kind

TIMEOUT_S = 10.0


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[FrontHarness]:
    with running_front(tmp_path) as made:
        made.join()
        yield made


def limited(folder: Path, limits: NodeFrontLimits) -> FrontHarness:
    harness = FrontHarness(folder, limits)
    harness.join()
    return harness


def test_a_lookup_finds_what_is_stored_and_pins_it_until_it_is_released(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(1500))
    call = harness.call()
    call.send(opening(3))
    sequence = sequence_of(1500)
    found = call.lookup(sequence, 3, 0, None, 0, TIMEOUT_S)
    assert (found.state, found.matched_blocks, found.segments) == (0, 1500, [(0, 0, 1500)])
    assert found.num_known == 1500
    assert harness.num_pinned == 1500
    assert harness.front.client_stats(CLIENT) == (1, 1, 1500, 0)
    call.send(datagram(Kind.RELEASE, struct.pack("<2Q", found.lookup, 99)))
    wait_until(lambda: harness.num_pinned == 0)


def test_a_grown_sequence_is_looked_up_by_its_new_keys_alone(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(40))
    call = harness.call()
    call.send(opening(3))
    grown = sequence_of(40)
    first = call.lookup(grown, 3, 0, 30, 0, TIMEOUT_S)
    assert (first.matched_blocks, first.num_known) == (30, 30)
    assert call.lookup(grown, 3, first.num_known, None, 0, TIMEOUT_S).matched_blocks == 40
    assert harness.front.client_stats(CLIENT)[2] == 40


def test_a_lookup_that_finds_nothing_new_pins_nothing(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(20))
    call = harness.call()
    call.send(opening(3))
    found = call.lookup(sequence_of(20), 3, 0, None, 20, TIMEOUT_S)
    assert (found.lookup, found.matched_blocks) == (0, 20)
    call.send(opening(4))
    found = call.lookup(sequence_of(20, seed=2), 4, 0, None, 0, TIMEOUT_S)
    assert (found.state, found.lookup, found.matched_blocks, found.segments) == (0, 0, 0, [])
    assert harness.num_pinned == 0


def test_a_looked_event_follows_with_the_sequence(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(20))
    call = harness.call()
    call.send(opening(3))
    sequence = sequence_of(24)
    call.lookup(sequence, 3, 0, 23, 0, TIMEOUT_S)
    _, client, looked, limit_blocks, matched_blocks, seconds, _, _ = harness.wait_for("looked")
    assert (client, limit_blocks, matched_blocks) == (CLIENT, 23, 20)
    assert isinstance(looked, Sequence)
    assert isinstance(seconds, float)
    assert looked.keys().tobytes() == sequence.keys(0, 23).tobytes()
    assert 0 < seconds < TIMEOUT_S


def test_the_pins_of_a_lookup_can_be_taken_once(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(20))
    call = harness.call()
    call.send(opening(3))
    found = call.lookup(sequence_of(20), 3, 0, None, 0, TIMEOUT_S)
    taken = harness.front.take_match(CLIENT, found.lookup)
    assert taken is not None
    match, sequence = taken
    assert (match.num_blocks, sequence.num_blocks) == (20, 20)
    assert harness.front.take_match(CLIENT, found.lookup) is None
    call.send(datagram(Kind.RELEASE, struct.pack("<Q", found.lookup)))
    assert call.lookup(sequence_of(20), 3, 20, None, 0, TIMEOUT_S).lookup != found.lookup
    harness.front.drop_client(CLIENT)
    assert harness.num_pinned == 20
    match.release()
    assert harness.num_pinned == 0


def test_an_unknown_sequence_is_said_to_be_unknown_and_can_be_sent_again(harness: FrontHarness) -> None:
    call = harness.call()
    sequence = sequence_of(1000)
    store(harness.index, sequence_of(1000))
    lost = call.lookup(sequence, 3, 900, None, 0, TIMEOUT_S)
    assert (lost.state, lost.lookup, lost.num_known) == (1, 0, 0)
    call.send(opening(3))
    assert call.lookup(sequence, 3, 900, None, 0, TIMEOUT_S).state == 1, "a gap is as if it were unknown"
    assert call.lookup(sequence, 3, 0, None, 0, TIMEOUT_S).matched_blocks == 1000


def test_keys_go_ahead_of_a_long_sequence(harness: FrontHarness) -> None:
    call = harness.call()
    call.send(opening(3))
    sequence = sequence_of(10_000)
    call.send_keys(sequence, 3, 0, 9_000)
    wait_until(lambda: harness.front.client_stats(CLIENT)[2] == 9_000)
    known = harness.front.sequence(CLIENT, 3)
    assert known is not None
    assert known.num_tokens == 9_000 * TOKENS_PER_BLOCK
    assert known.keys().tobytes() == sequence.keys(0, 9_000).tobytes()
    assert known.root == ROOT
    with pytest.raises(ValueError, match="stop"):
        call.send_keys(sequence, 3, 0, 10_001)
    call.send(datagram(Kind.FORGET, struct.pack("<2I", 3, 77)))
    wait_until(lambda: harness.front.client_stats(CLIENT) == (0, 0, 0, 0))
    assert known.num_blocks == 9_000, "whoever holds a sequence keeps it"


def test_the_least_recently_used_sequence_is_dropped(tmp_path: Path) -> None:
    harness = limited(tmp_path, NodeFrontLimits(sequences=2))
    call = harness.call()
    for number in (1, 2):
        call.send(opening(number))
    assert call.lookup(sequence_of(4), 1, 0, None, 0, TIMEOUT_S).state == 0
    call.send(opening(3))
    assert call.lookup(sequence_of(4), 2, 4, None, 0, TIMEOUT_S).state == 1
    assert call.lookup(sequence_of(4), 1, 4, None, 0, TIMEOUT_S).state == 0
    harness.close()


def test_keys_beyond_the_limit_drop_other_sequences(tmp_path: Path) -> None:
    harness = limited(tmp_path, NodeFrontLimits(keys=1 << 16))
    call = harness.call()
    for number in (1, 2):
        call.send(opening(number))
        call.send_keys(sequence_of(40_000), number, 0, 40_000)
    assert call.lookup(sequence_of(4), 1, 4, None, 0, TIMEOUT_S).state == 1
    assert harness.front.client_stats(CLIENT)[1:3] == (1, 40_000)
    harness.close()


def test_open_lookups_are_bounded(tmp_path: Path) -> None:
    harness = limited(tmp_path, NodeFrontLimits(lookups=2))
    store(harness.index, sequence_of(4))
    call = harness.call()
    call.send(opening(1))
    states = [call.lookup(sequence_of(4), 1, 0, None, 0, TIMEOUT_S).state for _ in range(3)]
    assert states == [0, 0, 2]
    harness.close()


def test_looked_events_beyond_the_limit_are_dropped_and_counted(tmp_path: Path) -> None:
    harness = limited(tmp_path, NodeFrontLimits(looked=3))
    call = harness.call()
    call.send(opening(1))
    for _ in range(10):
        call.lookup(sequence_of(4), 1, 0, None, 0, TIMEOUT_S)
    wait_until(lambda: harness.front.counts().looked_dropped == 7)
    assert [event[0] for event in harness.front.next(1.0)] == ["looked"] * 3
    assert harness.front.counts().lookups == 10
    harness.close()


def test_a_message_arrives_without_its_header_and_is_answered_with_files(harness: FrontHarness, tmp_path: Path) -> None:
    peer, connection = harness.connect()
    peer.send(HEADER + b"hello")
    assert harness.wait_for("message") == ("message", connection, b"hello")
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"shared")
        file.flush()
        assert harness.front.send(connection, HEADER + b"welcome", [file.fileno(), file.fileno()])
    data, fds, _, _ = socket.recv_fds(peer, 1000, 8)
    assert data == HEADER + b"welcome"
    assert [os.pread(fd, 100, 0) for fd in fds] == [b"shared"] * 2
    for fd in fds:
        os.close(fd)


def test_a_request_is_answered_and_a_late_answer_ends_the_connection(harness: FrontHarness) -> None:
    call = harness.call()

    def answer() -> None:
        _, connection, body = harness.wait_for("message")
        assert isinstance(connection, int)
        assert isinstance(body, bytes)
        harness.front.send(connection, HEADER + body.upper())

    server = threading.Thread(target=answer)
    server.start()
    assert call.request(HEADER + b"question", TIMEOUT_S) == HEADER + b"QUESTION"
    server.join()
    with pytest.raises(TimeoutError):
        call.request(HEADER + b"nobody answers", 0.01)
    with pytest.raises(OSError, match="closed"):
        call.request(HEADER + b"question", TIMEOUT_S)
    assert harness.wait_for("left")[2] == "closed by the peer"


def test_messages_come_before_the_end_of_their_connection(harness: FrontHarness) -> None:
    peer, connection = harness.connect()
    assert harness.front.send(connection, HEADER + b"never read")
    for number in range(20):
        peer.send(HEADER + bytes([number]))
    peer.close()
    received = [harness.wait_for("message")[2] for _ in range(20)]
    assert received == [bytes([number]) for number in range(20)]
    assert harness.wait_for("left") == ("left", connection, "closed by the peer")
    assert not harness.front.send(connection, HEADER + b"too late")


def test_a_lookup_whose_answer_nobody_reads_pins_nothing(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(8))
    peer = harness.join(calls=True)
    peer.send(opening(3))
    peer.send(lookup_of(3, sequence_of(8).keys().tobytes()))
    wait_until(lambda: harness.num_pinned == 8)
    peer.close()
    wait_until(lambda: harness.num_pinned == 0)


def test_a_dropped_client_leaves_nothing_and_its_connections_end(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(8))
    call = harness.call()
    call.send(opening(3))
    assert call.lookup(sequence_of(8), 3, 0, None, 0, TIMEOUT_S).lookup != 0
    harness.front.drop_client(CLIENT)
    assert harness.num_pinned == 0
    assert harness.front.client_stats(CLIENT) == (0, 0, 0, 0)
    assert harness.wait_for("left")[2] == "its client has ended"
    with pytest.raises(ConnectionResetError):
        call.lookup(sequence_of(8), 3, 0, None, 0, TIMEOUT_S)


def test_closing_ends_whoever_waits(tmp_path: Path) -> None:
    harness = limited(tmp_path, NodeFrontLimits())
    call = harness.call()
    outcomes: list[BaseException | list[object]] = []

    def ask() -> None:
        try:
            call.request(HEADER + b"?", TIMEOUT_S)
        except OSError as error:
            outcomes.append(error)

    def wait() -> None:
        while harness.front.next(TIMEOUT_S):
            pass
        outcomes.append([])

    threads = [threading.Thread(target=ask), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    harness.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert any(isinstance(outcome, ConnectionResetError) for outcome in outcomes)
    assert [] in outcomes


def test_admitting_is_checked(harness: FrontHarness) -> None:
    _, connection = harness.connect()
    with pytest.raises(ValueError, match="not known"):
        harness.front.admit(connection, 99, True)
    harness.front.admit(connection, CLIENT, True)
    with pytest.raises(ValueError, match="before"):
        harness.front.admit(connection, CLIENT, True)
    with pytest.raises(ValueError, match="longer"):
        harness.front.send(connection, bytes(200_000))
    with pytest.raises(ValueError, match="positive"):
        NodeCall(harness.join(calls=True).fileno()).lookup(sequence_of(1), 1, 0, None, 0, 0.0)
