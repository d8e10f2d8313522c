"""Who gets in: answers ZeroMQ's question after each handshake (ZAP, RFC 27), and counts connections.

CURVE has proved by then that the other side owns the public key that it shows; the gate says whose that is, or no. ZeroMQ writes
that name on every message of the connection, where its client cannot. Used by the door's thread alone, but for the counts.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from tiercel.node.remote.intake import Intake
from tiercel.node.remote.listing import Listing
from tiercel.node.remote.sockets import Context, Socket, zmq

_ADDRESS: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
LOOK_MS: Final = 250
"""How often to look how much connections have sent."""

_log = logging.getLogger(__name__)


class Gate:
    """Lets in the clients that a folder lists, up to a number of connections of a socket that does not listen yet.

    Raises:
        ConfigError: there is no such folder, or others may write to it.
    """

    def __init__(
        self, context: Context, router: Socket, clients: Path, connections_max: int, unseen_bytes_max: int
    ) -> None:
        self.listing = Listing(clients)
        self.num_refused = 0
        self._connections_max = connections_max
        self._unseen_bytes_max = unseen_bytes_max
        self._open: dict[int, Intake] = {}
        self._look_at = 0.0
        self._questions = context.socket(zmq.REP)
        self._questions.setsockopt(zmq.LINGER, 0)
        self._questions.bind(_ADDRESS)
        self._monitor = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)

    @property
    def num_connections(self) -> int:
        """Connections now, those in their handshake included."""
        return len(self._open)

    @property
    def actions(self) -> dict[object, Callable[[], None]]:
        """What to call when which socket has something."""
        return {self._questions: self._answer, self._monitor: self._note}

    def heard(self, fd: int) -> None:
        """A whole message has come by ZeroMQ's connection `fd`."""
        intake = self._open.get(fd)
        if intake is not None:
            intake.heard()

    def look(self, now_s: float) -> None:
        """Cut connections that send a message without end, if it is time to look for them."""
        if now_s < self._look_at:
            return
        self._look_at = now_s + LOOK_MS / 1000
        for intake in self._open.values():
            if intake.unseen_bytes > self._unseen_bytes_max:
                self.num_refused += 1
                _log.warning(
                    "a remote connection is cut: it sent more than %d bytes of one message", self._unseen_bytes_max
                )
                intake.cut()

    def close(self) -> None:
        """Watch nobody any more."""
        for fd in list(self._open):
            self._forget(fd)

    def _answer(self) -> None:
        self._note()  # of the connection that asks, too, which was told before and may not have been counted yet
        version, request, _domain, _address, _identity, mechanism, *proof = self._questions.recv_multipart(zmq.NOBLOCK)
        is_curve = version == _VERSION and mechanism == b"CURVE" and len(proof) == 1
        client = self.listing.by_key(z85.encode(proof[0]).decode()) if is_curve else None
        if client is None:
            self._say(request, b"400", b"not listed", b"")
        elif len(self._open) > self._connections_max:
            self._say(request, b"300", b"too many connections", b"")
        else:
            self._say(request, b"200", b"OK", client.name.encode())

    def _say(self, request: bytes, status: bytes, text: bytes, name: bytes) -> None:
        self.num_refused += not name
        self._questions.send_multipart([_VERSION, request, status, text, name, b""])

    def _note(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._forget(event["value"])
                self._open[event["value"]] = Intake(event["value"])
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                self._forget(event["value"])

    def _forget(self, fd: int) -> None:
        intake = self._open.pop(fd, None)
        if intake is not None:
            intake.close()
