"""The protocol against peers that send anything; `tests/faults/hostile_peers.py` says what is held."""

import random
from pathlib import Path

import msgspec
import pytest

from tests.faults import hostile_peers
from tests.helpers.hostile_messages import TO_CLIENT, TO_NODE, HostileMessages
from tests.helpers.seeds import chosen_seed
from tiercel.node.codec import decode_for_client, decode_for_node
from tiercel.node.protocol import HEADER, HEADER_BYTES, Message, MessageError


@pytest.mark.parametrize("kind", dict.fromkeys((*TO_NODE, *TO_CLIENT)), ids=lambda kind: kind.__name__)
def test_what_the_generator_calls_right_is_taken(kind: type[Message]) -> None:
    messages = HostileMessages(random.Random(chosen_seed()))
    for _ in range(100):
        datagram = messages.message(kind, wildness=0.0)
        if kind in TO_NODE:
            assert type(decode_for_node(datagram[HEADER_BYTES:])) is kind
        if kind in TO_CLIENT:
            assert type(decode_for_client(datagram)) is kind


def test_hostile_messages_change_nothing_leak_nothing_and_are_all_answered(tmp_path: Path) -> None:
    result = hostile_peers.run(tmp_path, chosen_seed(), 12_000)
    read, passed = result["read"], result["calls_that_passed"]
    assert isinstance(read, dict)
    assert isinstance(passed, dict)
    assert min(read.values()) > 500
    assert passed["AskStatus"] > 20


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
def test_a_value_nested_without_end_is_refused(opening: bytes) -> None:
    facts = b"\x94\x81\xa1a" + opening * 100_000
    with pytest.raises(MessageError):
        decode_for_client(HEADER + b"\x97\xa7Welcome\x01\xc4\x10" + bytes(16) + b"\x90\x00" + facts)
    with pytest.raises(MessageError):
        decode_for_node(b"\x92\xa4Join" + opening * 100_000)
    assert msgspec.msgpack.decode(b"\x91\x00") == [0]
