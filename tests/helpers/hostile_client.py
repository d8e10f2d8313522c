"""A local client of a running node that sends anything, as a stranger, on its event connection or on one for calls."""

import contextlib
import os
import random
import select
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Final, get_args

from tests.helpers.hostile_messages import HostileMessages
from tiercel.node.calls import AskStatus, OpenNamespace, Reset, Root
from tiercel.node.codec import Answer, Call, ToClient, ToNode, decode_for_client, decode_for_node, encode
from tiercel.node.joining import Hello, Join, Joined, Ready, Refused, Welcome
from tiercel.node.protocol import HEADER, HEADER_BYTES, MESSAGE_BYTES_MAX, Kind, Message, MessageError

ANSWER_S: Final = 20.0
ANSWERS: Final = get_args(Answer)
CALLS: Final = get_args(Call)


class Line:
    """One connection. Its peer's end raises EOFError."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(str(path))

    def send(self, datagram: bytes) -> None:
        """Send, whatever it is."""
        try:
            self._socket.send(datagram)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EOFError from error

    def receive(self, timeout_s: float = ANSWER_S) -> ToClient | None:
        """Wait for a message; FOUND and HELD are skipped. None if there was none in time."""
        stop_at = time.monotonic() + timeout_s
        while select.select([self._socket], [], [], max(0.0, stop_at - time.monotonic()))[0]:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX + 1, 64, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError as error:
                raise EOFError from error
            for fd in fds:
                os.close(fd)
            if not data:
                raise EOFError
            if data[HEADER_BYTES - 1] not in (Kind.FOUND, Kind.HELD):
                return decode_for_client(data)
        return None

    def ask(self, message: Message) -> ToClient:
        """Send a message and return what comes back. Fails if nothing does."""
        self.send(encode(message))
        answer = self.receive()
        assert answer is not None, f"{type(message).__name__} has no answer"
        return answer

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class HostileClient:
    """Talks to the node at a socket, again and again.

    Attributes:
        seen: what became of messages and connections.
        num_sent: messages.
    """

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._rng = rng
        self._messages = HostileMessages(rng)
        self.seen: Counter[str] = Counter()
        self.num_sent = 0

    def talk(self, turns: int) -> None:
        """Be let in, or not; send that many messages at most; leave. Each is answered, or the connection is cut."""
        role = self._rng.choice(("stranger", "event", "call", "call", "call"))
        with contextlib.ExitStack() as opened, contextlib.suppress(EOFError):
            line = self._dial(opened)
            if role == "stranger":
                self._last(line, Hello("stranger", None), turns)
                return
            welcome = line.ask(Hello("hostile", None))
            assert isinstance(welcome, Welcome)
            line.send(encode(Ready()))
            if role == "event":
                self._last(line, AskStatus(), turns)
                return
            left = turns
            while left > 0:
                with contextlib.suppress(EOFError), contextlib.ExitStack() as one_call:
                    left -= self._calls(self._dial(one_call), welcome, left)
                left -= 1

    def _dial(self, opened: contextlib.ExitStack) -> Line:
        line = Line(self._path)
        opened.callback(line.close)
        return line

    def _calls(self, line: Line, welcome: Welcome, turns: int) -> int:
        assert isinstance(line.ask(Join(welcome.client, welcome.token)), Joined)
        root = line.ask(OpenNamespace(self._rng.choice(("", "a"))))
        assert isinstance(root, Root)
        self._messages.root = root.root
        self._last(line, AskStatus(), turns)
        return turns

    def _last(self, line: Line, end: Message, turns: int) -> None:
        """Send messages and, behind them, one that is answered or cuts; what comes back is what it should be."""
        try:
            for _ in range(turns):
                self._one(line)
            line.send(encode(end))
            stop_at = time.monotonic() + ANSWER_S
            while not isinstance(line.receive(), (*ANSWERS, Welcome, Refused)):
                assert time.monotonic() < stop_at, "neither answered nor cut"
            self.seen["stayed"] += 1
        except EOFError:
            self.seen["cut"] += 1
            raise

    def _one(self, line: Line) -> None:
        datagram = self._messages.next()
        message = read(datagram)
        if (
            isinstance(message, Reset) or not datagram
        ):  # a reset may be asked for; an empty datagram is an end to the kernel
            return
        self.num_sent += 1
        line.send(datagram)
        answer = line.receive(ANSWER_S if isinstance(message, CALLS) else 0.0)
        while answer is not None and isinstance(message, CALLS) and not isinstance(answer, (*ANSWERS, Refused)):
            answer = line.receive()
        assert answer is not None or not isinstance(message, CALLS), f"{message!r} has no answer"
        if answer is not None:
            self.seen[type(answer).__name__] += 1


def read(datagram: bytes) -> ToNode | None:
    """What a node takes a datagram for; None for what is no message to it."""
    try:
        return decode_for_node(datagram[HEADER_BYTES:]) if datagram[:HEADER_BYTES] == HEADER else None
    except MessageError:
        return None
