"""Sends a node's protocol what no client would: nothing changes, nothing leaks, everything is answered or cut.

    python -m tests.faults.hostile_peers --messages 250000 --json FILE

Every message is read as a node and as a client would (`codec`), and sent over TCP with a listed key to a door whose node writes
down what it is asked. Run as tests with some ten thousands by `tests/node/test_hostile_peers.py`.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import get_args

import psutil
import zmq

from tests.helpers.hostile_messages import TO_CLIENT, TO_NODE, HostileMessages
from tests.helpers.remote_node import AskedNode, made_keys, open_door
from tiercel.node.calls import CountHits, Failed, OpenNamespace, PrefetchKeys
from tiercel.node.codec import Answer, Call, decode_for_client, decode_for_node, encode
from tiercel.node.protocol import HEADER, HEADER_BYTES, MessageError
from tiercel.node.remote import RemoteDoor, RemoteNode, read_client_keys

CLIENT = "a"
"""May ask about namespace a and for the status, nothing else."""
_WINDOW = 8
_ANSWER_S = 20


class CheckingNode(AskedNode):
    """Remembers how often it was asked what, and fails at what its client may not ask."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __call__(self, client: str, namespaces: frozenset[str], call: Call) -> Answer:
        assert client == CLIENT
        match call:
            case CountHits() | PrefetchKeys():
                assert call.namespace == "a"
                assert len(call.keys) % 16 == 0
            case OpenNamespace():
                assert call.name == "a"
        self.counts[type(call).__name__] += 1
        answer = super().__call__(client, namespaces, call)
        self.asked.clear()
        return answer


def read_by_both_sides(datagram: bytes) -> Counter[str]:
    """Decode as each side would. Whatever is taken is of that side, and the same after a turn. Fails otherwise."""
    seen: Counter[str] = Counter()
    if datagram[:HEADER_BYTES] == HEADER:
        try:
            message = decode_for_node(datagram[HEADER_BYTES:])
            assert type(message) in TO_NODE
            assert decode_for_node(encode(message)[HEADER_BYTES:]) == message
            seen["taken as a node"] += 1
        except MessageError:
            seen["refused as a node"] += 1
    try:
        answer = decode_for_client(datagram)
        assert type(answer) in TO_CLIENT
        encode(answer)
        seen["taken as a client"] += 1
    except MessageError:
        seen["refused as a client"] += 1
    return seen


class HostileClient:
    """A client with a listed key that sends anything, a few ahead, and wants one answer for each."""

    def __init__(self, door: RemoteDoor, keys: Path, rng: random.Random) -> None:
        told = read_client_keys(keys / f"{CLIENT}.client.json")
        self._rng = rng
        self._context = zmq.Context()
        self._peer = self._context.socket(zmq.DEALER)
        self._peer.setsockopt(zmq.LINGER, 0)
        self._peer.setsockopt_string(zmq.CURVE_SERVERKEY, told.server_key)
        self._peer.setsockopt_string(zmq.CURVE_PUBLICKEY, told.public_key)
        self._peer.setsockopt_string(zmq.CURVE_SECRETKEY, told.secret_key)
        self._peer.connect(door.endpoint)
        self._due: Counter[bytes] = Counter()
        self._number = 0
        self.answers: Counter[str] = Counter()

    def send(self, datagram: bytes) -> None:
        """Send a datagram, most often in the frames of a request; takes answers when enough are due."""
        self._number += 1
        number = self._number.to_bytes(8, "little")
        way = self._rng.random()
        if way < 0.97:
            parts = [number, datagram]
        else:
            parts = self._rng.choice(
                ([datagram], [], [number, datagram, b""], [number[:5], datagram], [number] * 40)
            ) or [b""]
            number = number if len(parts) == 2 and len(parts[0]) == 8 else bytes(8)
        self._peer.send_multipart(parts)
        self._due[number] += 1
        while self._due.total() >= _WINDOW:
            self._take()

    def finish(self) -> None:
        """Take the answers that are due, and see that there are no more."""
        while self._due.total():
            self._take()
        assert not self._peer.poll(50), "an answer to nothing"

    def close(self) -> None:
        """End the connection."""
        self._peer.close()
        self._context.term()

    def _take(self) -> None:
        assert self._peer.poll(_ANSWER_S * 1000), f"{self._due.total()} messages have no answer"
        number, datagram = self._peer.recv_multipart()
        assert self._due[number] > 0, "an answer to nothing"
        self._due -= Counter((number,))  # which drops what is at nothing, so that a long run stays fast
        answer = decode_for_client(datagram)
        assert type(answer) in get_args(Answer)
        self.answers[type(answer).__name__] += 1


def run(directory: Path, seed: int, num_messages: int) -> dict[str, object]:
    """Send messages to both; return what came of it. Raises AssertionError."""
    rng = random.Random(seed)
    messages, node, seen = HostileMessages(rng), CheckingNode(), Counter[str]()
    started, process = time.monotonic(), psutil.Process()
    keys = made_keys(directory / "keys")
    with open_door(keys, node=node) as door, closing(HostileClient(door, keys, rng)) as hostile:
        warm_bytes = 0
        for number in range(num_messages):
            datagram = messages.next()
            try:
                seen += read_by_both_sides(datagram)
                hostile.send(datagram)
            except BaseException as error:
                raise AssertionError(f"message {number} of seed {seed}: {datagram[:200]!r}") from error
            if number == num_messages // 5:
                warm_bytes = process.memory_info().rss
        hostile.finish()
        grown = process.memory_info().rss - warm_bytes
        assert hostile.answers.total() == num_messages
        assert node.counts.total() == num_messages - hostile.answers[Failed.__name__]
        with RemoteNode(door.endpoint, read_client_keys(keys / f"{CLIENT}.client.json"), timeout_s=_ANSWER_S) as honest:
            assert honest.count_hits(list(range(100)), "a") == 96
        assert door.counts.throttled == door.counts.lost == door.counts.refused == 0
    assert grown < 32 << 20, f"memory grew by {grown} bytes"
    return {
        "seed": seed,
        "messages": num_messages,
        "seconds": round(time.monotonic() - started, 1),
        "read": dict(sorted(seen.items())),
        "answers_of_the_door": dict(hostile.answers.most_common()),
        "calls_that_passed": dict(node.counts.most_common()),
        "memory_grown_bytes": grown,
    }


def arguments(description: str | None, num_messages: int) -> argparse.Namespace:
    """Read the command line of a run: --messages, --seed and --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=num_messages)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    sys.stderr.write(f"seed {given.seed}\n")
    return given


def write_report(what: str, module: str, given: argparse.Namespace, result: dict[str, object]) -> None:
    """Print what was run and what came of it, and write it where the command line says."""
    report = {
        "what": what,
        "command": f"python -m {module} --messages {given.messages} --seed {given.seed}",
        "commit": given.commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        **result,
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if given.json is not None:
        given.json.write_text(text)


def main() -> None:
    given = arguments(__doc__, 250_000)
    with tempfile.TemporaryDirectory() as directory:
        result = run(Path(directory), given.seed, given.messages)
    write_report("hostile messages against the codec and the remote door", "tests.faults.hostile_peers", given, result)


if __name__ == "__main__":
    main()
