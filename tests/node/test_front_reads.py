"""Blocks that clients read themselves: the front tells the slots, holds the pins, and says afterwards whether they held."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.node_front import (
    CLIENT,
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
from tiercel._native import NodeCall, NodeFound, NodeFrontLimits
from tiercel.node.protocol import HEADER, Kind

TIMEOUT_S = 5.0


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[FrontHarness]:
    with running_front(tmp_path, NodeFrontLimits(tokens_per_block=TOKENS_PER_BLOCK, read_tier=0)) as made:
        made.join()
        yield made


def look_up(call: NodeCall, num_blocks: int, number: int = 3) -> NodeFound:
    return call.lookup(sequence_of(num_blocks), number, 0, None, 0, TIMEOUT_S)


def test_slots_are_told_of_what_lies_whole_in_the_tier_to_read(harness: FrontHarness) -> None:
    sequence = sequence_of(40)
    store(harness.index, sequence)
    told = np.frombuffer(look_up(harness.call(), 40).packed_slots, np.uint32)
    match = harness.index.match(sequence)
    assert told.tolist() == match.slots().tolist()


def test_no_slots_are_told_where_clients_may_not_read(tmp_path: Path) -> None:
    with running_front(tmp_path) as harness:
        harness.join()
        store(harness.index, sequence_of(40))
        found = look_up(harness.call(), 40)
        assert (found.matched_blocks, found.packed_slots) == (40, b"")


def test_no_slots_are_told_of_more_blocks_than_a_datagram_takes(tmp_path: Path) -> None:
    limits = NodeFrontLimits(tokens_per_block=TOKENS_PER_BLOCK, read_tier=0)
    harness = FrontHarness(tmp_path, limits, num_slots=20_000)
    try:
        harness.join()
        store(harness.index, sequence_of(17_000))
        call = harness.call()
        assert len(call.lookup(sequence_of(17_000), 3, 0, 16_384, 0, TIMEOUT_S).packed_slots) == 4 * 16_384
        assert call.lookup(sequence_of(17_000), 3, 16_384, 16_385, 0, TIMEOUT_S).packed_slots == b""
    finally:
        harness.close()


def test_the_end_of_a_read_ends_the_lookup_and_is_told(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(40))
    call = harness.call()
    found = look_up(call, 40)
    assert harness.num_pinned == 40
    assert call.end_read(found.lookup, 8, 30, 0.25, TIMEOUT_S)
    wait_until(lambda: harness.num_pinned == 0)
    _, client, sequence, first_block, num_blocks, seconds = harness.wait_for("read")
    assert (client, first_block, num_blocks, seconds) == (CLIENT, 8, 30, 0.25)
    assert sequence.keys().tobytes() == sequence_of(40).keys().tobytes()  # type: ignore[attr-defined]
    assert not call.end_read(found.lookup, 8, 30, 0.25, TIMEOUT_S), "a lookup ends once"


def test_what_was_read_while_everything_was_forgotten_was_not_held(harness: FrontHarness) -> None:
    store(harness.index, sequence_of(40))
    call = harness.call()
    found = look_up(call, 40)
    harness.index.clear()
    assert not call.end_read(found.lookup, 0, 40, 0.1, TIMEOUT_S)


@pytest.mark.parametrize("how", ["released", "taken for an operation", "another client's", "never made"])
def test_what_was_read_without_the_lookup_was_not_held(harness: FrontHarness, how: str) -> None:
    store(harness.index, sequence_of(40))
    call = harness.call()
    found = look_up(call, 40)
    number = found.lookup
    if how == "released":
        call.send(datagram(Kind.RELEASE, struct.pack("<Q", number)))
    elif how == "taken for an operation":
        taken = harness.front.take_match(CLIENT, number)
        assert taken is not None
    elif how == "another client's":
        harness.join(CLIENT + 1)
        call = harness.call(CLIENT + 1)
    else:
        number = 1 << 60
    assert not call.end_read(number, 0, 40, 0.1, TIMEOUT_S)


@pytest.mark.parametrize(
    "read",
    [
        (1, 0, 5, 0, 1, 0.1),  # more blocks than were found
        (1, 0xFFFFFFFF, 1, 0, 1, 0.1),
        (1, 0, 4, 0, 1, -0.1),
        (1, 0, 4, 0, 1, float("nan")),
        (1, 0, 4, 0, 1, 1e9),
    ],
)
def test_a_read_that_cannot_be_ends_its_connection(
    harness: FrontHarness, read: tuple[int, int, int, int, int, float]
) -> None:
    store(harness.index, sequence_of(4))
    peer = harness.join(calls=True)
    peer.send(opening(3))
    peer.send(lookup_of(3, sequence_of(4).keys().tobytes()))
    assert peer.recv(4096)
    peer.send(datagram(Kind.READ, struct.pack("<4IQd", *read)))
    assert peer.recv(4096).startswith(HEADER), "it is told why"
    assert peer.recv(4096) == b""
    assert harness.front.counts().malformed == 1


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_read_of_another_length_ends_its_connection(harness: FrontHarness, length: int) -> None:
    peer = harness.join(calls=True)
    peer.send(datagram(Kind.READ, bytes(length)))
    assert peer.recv(4096).startswith(HEADER)
    assert peer.recv(4096) == b""


def test_a_connection_that_is_not_for_calls_ends_no_read(harness: FrontHarness) -> None:
    peer = harness.join(CLIENT + 1)
    peer.send(datagram(Kind.READ, struct.pack("<4IQd", 1, 0, 0, 0, 1, 0.0)))
    assert peer.recv(4096).startswith(HEADER)
    assert peer.recv(4096) == b""


def test_a_client_takes_only_the_answer_to_its_read(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        call = NodeCall(ours.fileno())
        theirs.send(datagram(Kind.HELD, struct.pack("<2I", 77, 1)))
        with pytest.raises(OSError, match="something else"):
            call.end_read(1, 0, 1, 0.0, TIMEOUT_S)
