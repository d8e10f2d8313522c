"""A client of a node, written by hand over its sockets: it says what a test wants, and copies when the test lets it.

Its memory is a `SmallEngine`; its copies run on a thread that a test can stop.
"""

import os
import queue
import select
import socket
import struct
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from tests.helpers.small_engine import SmallEngine
from tiercel import Sequence
from tiercel._native import NodeCall, NodeFound
from tiercel.layout import BlockGeometry, EngineBlocks
from tiercel.node.calls import Failed, Launch, Launched, Load, OpenNamespace, Root, Store
from tiercel.node.codec import ToClient, decode_for_client, encode
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.events import Bye, Cancel, CancelCopy, Copy, Done, Ended, SourceFree
from tiercel.node.joining import Hello, Join, Joined, Ready, Refused, Welcome
from tiercel.node.protocol import MAGIC, MESSAGE_BYTES_MAX, PROTOCOL_VERSION, Kind, Message
from tiercel.ranks.regions import MappedRegion

WAIT_S = 20.0


def dial(directory: Path) -> socket.socket:
    """Connect to a node as a stranger."""
    connection = LocalEndpoint(directory).connect(WAIT_S)
    assert connection is not None, "no node listens"
    connection.settimeout(WAIT_S)
    return connection


def receive(connection: socket.socket) -> tuple[ToClient | None, list[int]]:
    """One message, and the files that came along; None at the end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    assert poll.poll(WAIT_S * 1000), "no answer"
    try:
        data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX + 1, 16)
    except ConnectionResetError:
        return None, []
    return (decode_for_client(data) if data else None), list(fds)


def ask(connection: socket.socket, message: Message | bytes) -> ToClient | None:
    """Send a message and return what is answered."""
    connection.send(message if isinstance(message, bytes) else encode(message))
    return receive(connection)[0]


def datagram(kind: Kind, body: bytes) -> bytes:
    return MAGIC + bytes([PROTOCOL_VERSION, kind]) + body


class RawClient:
    """A client with memory. Use as a context manager."""

    def __init__(self, directory: Path, geometry: BlockGeometry, name: str = "raw", num_blocks: int = 64) -> None:
        self._open = ExitStack()
        self.directory = directory
        self.events = dial(directory)
        self._open.callback(self.events.close)
        self.events.send(encode(Hello(name, dict(geometry.fingerprint_parts()))))
        welcome, fds = receive(self.events)
        assert isinstance(welcome, Welcome), welcome
        self.welcome = welcome
        self.regions = [
            MappedRegion(fd, region.num_bytes, resident=region.resident, unit_bytes=region.unit_bytes)
            for fd, region in zip(fds, welcome.regions, strict=False)
        ]
        self.board_fd = fds[-1]
        for fd in fds[:-1]:
            os.close(fd)
        self.geometry = geometry
        self.engine = SmallEngine(geometry, num_blocks)
        self.blocks: dict[int, EngineBlocks] = {}
        self.ended: dict[int, Ended] = {}
        self.freed: set[int] = set()
        self.copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        self.running = threading.Event()
        self.running.set()
        self.over = threading.Event()
        self.reason = ""
        self._changed = threading.Condition()
        self._numbers = iter(range(1, 1 << 30))
        self._sequences = iter(range(1, 1 << 30))
        self.calls = self.join()
        self.fast = NodeCall(self.calls.fileno())
        self.events.send(encode(Ready()))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def join(self) -> socket.socket:
        connection = dial(self.directory)
        self._open.callback(connection.close)
        joined = ask(connection, Join(self.welcome.client, self.welcome.token))
        assert isinstance(joined, Joined), joined
        return connection

    def call(self, message: Message) -> ToClient:
        return decode_for_client(self.fast.request(encode(message), WAIT_S))

    def root(self, namespace: str = "") -> bytes:
        answer = self.call(OpenNamespace(namespace))
        assert isinstance(answer, Root), answer
        return answer.root

    def sequence(self, tokens: np.ndarray, namespace: str = "") -> tuple[Sequence, int]:
        """A sequence, and its number at the node."""
        root, number = self.root(namespace), next(self._sequences)
        self.fast.send(datagram(Kind.OPEN, struct.pack("<I", number) + root))
        return Sequence(root, self.geometry.tokens_per_block, tokens), number

    def lookup(self, sequence: Sequence, number: int) -> NodeFound:
        return self.fast.lookup(sequence, number, 0, None, 0, WAIT_S)

    def store(self, sequence: Sequence, number: int, *, at: int = 0, timeout_s: float = 10.0) -> int:
        """Store a sequence whose blocks lie at engine blocks from `at` on. Returns the ticket."""
        self.fast.send_keys(sequence, number, 0, sequence.num_blocks)
        ticket = next(self._numbers)
        self.blocks[ticket] = self.engine.blocks(at, at + sequence.num_blocks)
        answer = self.call(Store(ticket, number, 0, sequence.num_blocks, 0, timeout_s, False, None))
        assert isinstance(answer, Launched), answer
        return ticket

    def launch(self, found: NodeFound, *, at: int = 0, timeout_s: float = 10.0) -> int | Failed:
        """Load all that was found to engine blocks from `at` on. Returns the ticket."""
        ticket = next(self._numbers)
        self.blocks[ticket] = self.engine.blocks(at, at + found.matched_blocks)
        answer = self.call(Launch([Load(ticket, found.lookup, 0, found.matched_blocks, False)], timeout_s, None))
        assert isinstance(answer, Launched | Failed), answer
        return answer if isinstance(answer, Failed) else ticket

    def cancel(self, ticket: int) -> None:
        self.events.send(encode(Cancel(ticket)))

    def wait(self, ticket: int, timeout_s: float = WAIT_S) -> Ended:
        with self._changed:
            assert self._changed.wait_for(lambda: ticket in self.ended, timeout_s), f"ticket {ticket} has no outcome"
            return self.ended[ticket]

    def leave(self) -> None:
        """End in order."""
        self.events.send(encode(Bye()))

    def stop(self) -> None:
        """Answer nothing from now on, as a process that was stopped."""
        self.running.clear()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.running.set()
        with suppress(OSError):
            self.leave()
        with suppress(OSError):
            self.events.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_S)
        self.fast.close()
        self._open.close()
        os.close(self.board_fd)

    def _listen(self) -> None:
        while True:
            try:
                data = self.events.recv(MESSAGE_BYTES_MAX + 1)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            self.running.wait()
            if not data:
                self.over.set()
                return
            message = decode_for_client(data)
            with self._changed:
                if isinstance(message, Copy):
                    self._copy(message)
                elif isinstance(message, Ended):
                    self.ended[message.ticket] = message
                elif isinstance(message, SourceFree):
                    self.freed.add(message.ticket)
                elif isinstance(message, Refused):
                    self.reason = message.reason
                else:
                    assert isinstance(message, CancelCopy), message
                self._changed.notify_all()

    def _copy(self, copy: Copy) -> None:
        addresses = self.regions[copy.region].addresses(copy.pages, self.geometry.block_bytes)
        blocks = self.blocks[copy.ticket].slice(copy.first_block, copy.first_block + len(addresses))
        (blocks.scatter if copy.loading else blocks.gather)(addresses)
        with suppress(OSError):
            self.events.send(encode(Done(copy.number, "")))


__all__ = ["RawClient", "ask", "datagram", "dial", "receive"]
