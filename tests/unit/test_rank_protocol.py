"""What ranks and caches say to each other is checked: anything else gets an error and changes nothing."""

import random
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.faults.test_cache_faults import assert_nothing_is_held
from tests.helpers.rank_engine import MODEL, WAIT_S, Ranks, RankShard, open_cache, until
from tests.helpers.seeds import chosen_seed
from tests.helpers.small_engine import TOKENS_PER_BLOCK, tokens
from tiercel import BlockGeometry, Cache, DeviceError, RankAgent, RankGroup
from tiercel.ranks import sockets
from tiercel.ranks.messages import (
    BLOCKS_MAX,
    MESSAGE_BYTES_MAX,
    PROTOCOL_VERSION,
    Bye,
    Cancel,
    Copy,
    Done,
    Hello,
    Message,
    MessageError,
    Ready,
    Refused,
    Region,
    Welcome,
    decode_for_cache,
    decode_for_rank,
    encode,
    shortened,
)

GEOMETRY = BlockGeometry.from_model(MODEL, tokens_per_block=TOKENS_PER_BLOCK)
HELLO = Hello(
    rank=0,
    geometry=dict(GEOMETRY.fingerprint_parts()),
    head_start=0,
    head_stop=4,
    num_blocks=96,
    device="cpu",
    writable=True,
)
COPY = Copy(number=1, loading=True, region=0, after_step=None, ids=bytes(16), pages=bytes(16))
TO_CACHE: list[Message] = [HELLO, Ready(), Done(1, ""), Done(1, "why"), Refused("no"), Bye()]
TO_RANK: list[Message] = [Welcome([Region(4096, True)]), Refused("no"), COPY, Cancel(1)]
FUZZED = 20_000


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def dial(stack: ExitStack, directory: Path) -> socket.socket:
    """Connect to a group as a stranger."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(connection.close)
    connection.connect(str(directory / sockets.SOCKET_NAME))
    return connection


def answer(connection: socket.socket) -> bytes:
    """What the group says next; b"" if it hangs up."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    assert poll.poll(WAIT_S * 1000), "no answer"
    try:
        return connection.recv(MESSAGE_BYTES_MAX)
    except ConnectionResetError:
        return b""


def assert_works(cache: Cache, ranks: Ranks, seed: int) -> None:
    sequence = cache.sequence(tokens(8, seed=seed))
    ranks.fill(sequence.keys(0))
    assert cache.store(sequence, ranks.group.blocks(range(8))).wait(WAIT_S).ok
    ranks.poison()
    assert cache.load(sequence, ranks.group.blocks(range(8))).wait(WAIT_S).ok
    assert ranks.num_right(sequence.keys(0)) == 8
    assert_nothing_is_held(cache)


def mutated(chance: random.Random, data: bytes) -> bytes:
    """A message with something wrong, most of the time."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        kind, at = chance.randrange(5), chance.randrange(len(changed) + 1)
        if kind == 0 and at < len(changed):
            changed[at] = chance.randrange(256)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 3 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        else:
            changed[at:at] = struct.pack(">BI", chance.choice([0xDD, 0xDB, 0xC6, 0xCE]), chance.randrange(2**32))
    return bytes(changed)


@pytest.mark.parametrize("message", TO_CACHE + TO_RANK, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_written_by_the_side_that_it_is_for(message: Message) -> None:
    data = encode(message)
    readers = {decode_for_cache: message in TO_CACHE, decode_for_rank: message in TO_RANK}
    for read, is_for_it in readers.items():
        if is_for_it:
            assert read(data) == message
        else:
            with pytest.raises(MessageError):
                read(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not a message"),
        (b"TR", "not a message"),
        (b"XR" + encode(COPY)[2:], "not a message"),
        (b"TR" + bytes([PROTOCOL_VERSION + 1]) + encode(COPY)[3:], "version 2, this side speaks 1"),
        (encode(COPY) + bytes(MESSAGE_BYTES_MAX), "more than 32768 bytes"),
        (encode(COPY)[:-1], "truncated"),
        (encode(COPY) + b"\0", "trailing"),
        (encode(msgspec.structs.replace(COPY, ids=bytes(4 * BLOCKS_MAX + 4))), "length <="),
        (encode(msgspec.structs.replace(COPY, number=-1)), ">= 0"),
        (encode(msgspec.structs.replace(COPY, region=8)), "< 8|<= 7"),
        (encode(msgspec.structs.replace(COPY, after_step="1")), "int"),
    ],
)
def test_what_is_no_message_of_this_version_is_refused_with_a_reason(data: bytes, text: str) -> None:
    with pytest.raises(MessageError, match=text):
        decode_for_rank(data)


def test_any_bytes_are_a_message_or_a_message_error() -> None:
    chance = random.Random(chosen_seed())
    written = [encode(message) for message in TO_CACHE + TO_RANK]
    num_read = 0
    for _ in range(FUZZED):
        data = mutated(chance, chance.choice(written))
        for read in (decode_for_cache, decode_for_rank):
            try:
                read(data)
                num_read += 1
            except MessageError:
                continue
    assert 0 < num_read < FUZZED


def test_a_long_text_is_cut_to_what_a_message_takes() -> None:
    assert decode_for_cache(encode(Done(1, shortened("x" * 9000)))) == Done(1, "x" * 1997 + "...")


def test_strangers_that_send_anything_are_cut_off_and_the_ranks_go_on(tmp_path: Path, stack: ExitStack) -> None:
    chance = random.Random(chosen_seed())
    written = [encode(message) for message in TO_CACHE + TO_RANK]
    cache = stack.enter_context(open_cache(tmp_path / "cache", host=64))
    ranks = stack.enter_context(Ranks(cache, tmp_path / "ranks", 2))
    for turn in range(200):
        with dial(stack, tmp_path / "ranks") as stranger:
            try:
                for _ in range(chance.randrange(1, 4)):
                    stranger.send(mutated(chance, chance.choice(written)) or b"\0")
                if chance.random() < 0.5:
                    answer(stranger)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it was cut off already
        if turn % 50 == 0:
            assert_works(cache, ranks, turn)
    assert_works(cache, ranks, 1000)


def test_a_stranger_of_another_version_is_told_so(tmp_path: Path, stack: ExitStack) -> None:
    cache = stack.enter_context(open_cache(tmp_path / "cache", host=64))
    ranks = stack.enter_context(Ranks(cache, tmp_path / "ranks", 2))
    for sent, reason in (
        (b"TR\x07" + encode(HELLO)[3:], "version 7"),
        (encode(HELLO), "rank 0 is not wanted"),
        (encode(Done(1, "")), "before it said who it is"),
        (bytes(MESSAGE_BYTES_MAX + 500), "more than 32768 bytes"),
    ):
        stranger = dial(stack, tmp_path / "ranks")
        stranger.send(sent)
        refused = decode_for_rank(answer(stranger))
        assert isinstance(refused, Refused)
        assert reason in refused.reason
        assert answer(stranger) == b""
    assert_works(cache, ranks, 1)


def test_silent_strangers_do_not_keep_ranks_out(tmp_path: Path, stack: ExitStack) -> None:
    cache = stack.enter_context(open_cache(tmp_path / "cache", host=64))
    group = stack.enter_context(
        RankGroup(cache.geometry, cache.shared_memory, num_ranks=1, directory=tmp_path / "ranks")
    )
    strangers = [dial(stack, tmp_path / "ranks") for _ in range(100)]
    stack.enter_context(RankAgent(tmp_path / "ranks", 0, RankShard(GEOMETRY, (0, 4)).memory))
    group.wait_ready(WAIT_S)
    assert answer(strangers[0]) == b""


@pytest.mark.parametrize("message", [Done(12345, ""), HELLO, b"nonsense"])
def test_a_rank_that_breaks_the_protocol_ends_the_group_and_leaks_nothing(
    tmp_path: Path, stack: ExitStack, message: Any
) -> None:
    cache = stack.enter_context(open_cache(tmp_path / "cache", host=64))
    ranks = stack.enter_context(Ranks(cache, tmp_path / "ranks", 2))
    link = ranks.agents[1]._link
    assert link is not None
    link.socket.send(message if isinstance(message, bytes) else encode(message))
    assert ranks.agents[1].ended.wait(WAIT_S)
    assert until(lambda: "rank 1" in ranks.group.failure)
    sequence = cache.sequence(tokens(8, seed=1))
    assert cache.store(sequence, ranks.group.blocks(range(8))).wait(WAIT_S).num_blocks_ok == 0
    assert_nothing_is_held(cache)


@pytest.mark.parametrize(
    ("copy", "reason"),
    [
        (msgspec.structs.replace(COPY, ids=b"\xff" * 16), "block id"),
        (msgspec.structs.replace(COPY, pages=b"\xff" * 16), "leaves the shared memory"),
        (msgspec.structs.replace(COPY, pages=bytes(12)), "names no blocks"),
        (msgspec.structs.replace(COPY, ids=bytes(15), pages=bytes(15)), "names no blocks"),
        (msgspec.structs.replace(COPY, region=7), "names no blocks"),
    ],
)
def test_a_copy_of_what_is_not_there_is_answered_with_the_reason_and_touches_nothing(
    tmp_path: Path, stack: ExitStack, copy: Copy, reason: str
) -> None:
    cache = stack.enter_context(open_cache(tmp_path / "cache", host=64))
    listener = stack.enter_context(sockets.listen(tmp_path / "ranks"))
    shard = RankShard(GEOMETRY, (0, 4))
    agent = stack.enter_context(RankAgent(tmp_path / "ranks", 0, shard.memory))
    listener.setblocking(True)
    peer, _ = listener.accept()
    stack.callback(peer.close)
    assert decode_for_cache(answer(peer)) == HELLO
    shared = cache.shared_memory[0]
    welcome = Welcome([Region(shared.num_bytes, resident=True)])
    socket.send_fds(peer, [encode(welcome)], [shared.fd])
    assert decode_for_cache(answer(peer)) == Ready()
    peer.send(encode(copy))
    done = decode_for_cache(answer(peer))
    assert isinstance(done, Done)
    assert done.number == 1
    assert reason in done.failure
    assert shard.is_poisoned(0, 96)
    peer.send(b"nonsense")
    assert agent.ended.wait(WAIT_S)
    with pytest.raises(DeviceError, match="cannot be understood"):
        agent.wait_ready(1)


@pytest.mark.parametrize("num_files", [0, 1, 2])
def test_a_rank_takes_no_welcome_whose_files_do_not_fit(tmp_path: Path, stack: ExitStack, num_files: int) -> None:
    cache = stack.enter_context(open_cache(tmp_path / "cache", host=64))
    listener = stack.enter_context(sockets.listen(tmp_path / "ranks"))
    agent = stack.enter_context(RankAgent(tmp_path / "ranks", 0, RankShard(GEOMETRY, (0, 4)).memory))
    listener.setblocking(True)
    peer, _ = listener.accept()
    stack.callback(peer.close)
    welcome = Welcome([Region(2**40, resident=False)])
    socket.send_fds(peer, [encode(welcome)], [cache.shared_memory[0].fd] * num_files)
    assert agent.ended.wait(WAIT_S)
    with pytest.raises(DeviceError, match="called 1099511627776 long" if num_files == 1 else "shares 1 memories"):
        agent.wait_ready(1)
