"""How long does a lookup through a node take, tokens hashed from scratch in the client?

A process with an index and the native front; clients are processes of their own. Each asks for sequences of 16,384 tokens (1,024
blocks of 16) that are stored, through `NodeCall.lookup`: hashing, 16 KiB of keys to the node, match and pins there, the answer
back. `8 busy clients` ask 50 times a second each, at times of their own. Beside it the same lookup in process, and what the
bytes alone cost there and back: over ZeroMQ from Python, and over a plain SOCK_SEQPACKET pair from Python.
"""

import multiprocessing
import random
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _harness import Row, make_parser, report

from tiercel._native import Index, NodeCall, NodeFront, NodeFrontLimits, Sequence
from tiercel.node.protocol import MAGIC, PROTOCOL_VERSION, Kind

P50_US, P99_US = 100.0, 1000.0
NUM_CLIENTS = 8
LOOKUPS_PER_S = 50
TOKENS_PER_BLOCK = 16
NUM_TOKENS = 16_384
NUM_SEQUENCES = 32
ROOT = bytes(16)
WARM_UP = 20
MESSAGE_BYTES, ANSWER_BYTES = 16 << 10, 48
_SPAWN = multiprocessing.get_context("spawn")


def sequence_of(number: int) -> Sequence:
    tokens = np.random.default_rng(number).integers(0, 150_000, NUM_TOKENS, dtype=np.int32)
    return Sequence(ROOT, TOKENS_PER_BLOCK, tokens)


def make_index() -> Index:
    index = Index([NUM_SEQUENCES * NUM_TOKENS // TOKENS_PER_BLOCK])
    for number in range(NUM_SEQUENCES):
        sequence = sequence_of(number)
        sequence.keys()
        index.commit(index.reserve(sequence, 0, owner=1))
    return index


def dial(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.connect(path)
    return peer


def admit(front: NodeFront, stop: threading.Event) -> None:
    """What a node does with events here: admit every connection, for calls behind its process's first."""
    known: set[int] = set()
    while not stop.is_set():
        for event in front.next(0.1):
            if event[0] == "connected":
                front.admit(event[1], event[2], event[2] in known)
                front.allow_root(event[2], ROOT)
                known.add(event[2])


def look_up(path: str, count: int, per_s: float | None, results: "multiprocessing.Queue[list[float]]") -> None:
    """A client: its lookups' seconds."""
    with dial(path), dial(path) as peer:
        time.sleep(0.3)  # for both to be admitted
        call = NodeCall(peer.fileno())
        rng = random.Random()
        seconds = []
        for number in range(count + WARM_UP):
            sequence = sequence_of(rng.randrange(NUM_SEQUENCES))
            if per_s is not None:
                time.sleep(rng.expovariate(per_s))
            start = time.perf_counter()
            found = call.lookup(sequence, number, 0, None, 0, 5.0)
            seconds.append(time.perf_counter() - start)
            assert found.matched_blocks == NUM_TOKENS // TOKENS_PER_BLOCK
            head = MAGIC + bytes([PROTOCOL_VERSION])
            call.send(head + bytes([Kind.RELEASE]) + struct.pack("<Q", found.lookup))
            call.send(head + bytes([Kind.FORGET]) + struct.pack("<I", number))
        results.put(seconds[WARM_UP:])


def run_clients(path: str, num_clients: int, count: int, per_s: float | None) -> list[float]:
    results: multiprocessing.Queue[list[float]] = _SPAWN.Queue()
    clients = [_SPAWN.Process(target=look_up, args=(path, count, per_s, results)) for _ in range(num_clients)]
    for client in clients:
        client.start()
    seconds = [one for _ in clients for one in results.get(timeout=300)]
    for client in clients:
        client.join()
    return seconds


def rows_of(name: str, seconds: list[float], *, bound: bool = False) -> list[Row]:
    ordered = sorted(one * 1e6 for one in seconds)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    spread = (ordered[0], ordered[-1])
    return [
        Row(name=f"{name}, p50", value=statistics.median(ordered), unit="us", bound=P50_US if bound else None,
            spread=spread, count=len(ordered)),
        Row(name=f"{name}, p99", value=p99, unit="us", bound=P99_US if bound else None, count=len(ordered)),
    ]  # fmt: skip


def measure_in_process(index: Index, count: int) -> list[float]:
    seconds = []
    for number in range(count):
        sequence = sequence_of(number % NUM_SEQUENCES)
        start = time.perf_counter()
        match = index.match(sequence)
        seconds.append(time.perf_counter() - start)
        match.release()
    return seconds


def time_calls(call: Callable[[], object], count: int) -> list[float]:
    seconds = []
    for _ in range(count + WARM_UP):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def answer_plain(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        while peer.recv(MESSAGE_BYTES):
            peer.send(bytes(ANSWER_BYTES))


def measure_plain(path: str, count: int) -> list[float]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(1)
        server = _SPAWN.Process(target=answer_plain, args=(listener,))
        server.start()
        message = bytes(MESSAGE_BYTES)
        with dial(path) as peer:

            def ask() -> None:
                peer.send(message)
                peer.recv(MESSAGE_BYTES)

            seconds = time_calls(ask, count)
        server.join()
    return seconds


def answer_zeromq(endpoint: str) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        while True:
            name, empty, message = router.recv_multipart()
            router.send_multipart([name, empty, bytes(ANSWER_BYTES)])
            if not message:
                return


def measure_zeromq(endpoint: str, count: int) -> list[float]:
    import zmq

    server = _SPAWN.Process(target=answer_zeromq, args=(endpoint,))
    server.start()
    message = bytes(MESSAGE_BYTES)
    with zmq.Context() as context, context.socket(zmq.REQ) as asking:
        asking.connect(endpoint)

        def ask() -> None:
            asking.send(message)
            asking.recv()

        seconds = time_calls(ask, count)
        asking.send(b"")
        asking.recv()
    server.join()
    return seconds


def measure_node(index: Index, folder: Path, count: int) -> list[Row]:
    path = str(folder / "node.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        front = NodeFront(listener.fileno(), index, NodeFrontLimits())
        stop = threading.Event()
        node = threading.Thread(target=admit, args=(front, stop))
        node.start()
        alone = run_clients(path, 1, count, None)
        busy = run_clients(path, NUM_CLIENTS, max(count // 4, 100), LOOKUPS_PER_S)
        stop.set()
        node.join()
        before = time.process_time()
        time.sleep(1.0)
        idle = time.process_time() - before
        front.close()
    name = f"lookup of {NUM_TOKENS} tokens"
    return [
        *rows_of(f"{name}, node, one client", alone, bound=True),
        *rows_of(f"{name}, node, {NUM_CLIENTS} busy clients", busy, bound=True),
        Row(name="processor used by an idle front", value=idle * 100, unit="%", bound=0.5),
    ]


def main() -> int:
    arguments = make_parser(__doc__).parse_args()
    count = arguments.repeats or 2000
    index = make_index()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = measure_node(index, folder, count)
        rows += rows_of(f"lookup of {NUM_TOKENS} tokens, in process", measure_in_process(index, count))
        rows += rows_of("16 KiB there and back, SOCK_SEQPACKET", measure_plain(str(folder / "plain.sock"), count))
        try:
            rows += rows_of("16 KiB there and back, ZeroMQ", measure_zeromq(f"ipc://{folder}/zeromq", count))
        except ImportError:
            print("ZeroMQ is not measured: pyzmq is not installed", file=sys.stderr)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
