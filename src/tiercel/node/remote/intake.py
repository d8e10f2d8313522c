"""How much a connection has sent since its last whole message, and the way to cut it off. Used by `gate`.

ZeroMQ collects all frames of a message before it shows any, and bounds a frame, not their number: a message without end would
fill the memory unseen. The kernel counts what came, though.
"""

import os
import socket
import struct
from contextlib import suppress
from typing import Final

_BYTES_RECEIVED: Final = struct.Struct("128xQ")
"""`tcpi_bytes_received` in Linux's `tcp_info`."""


class Intake:
    """One connection of ZeroMQ's, until `close`. Holds a descriptor of its own, so that it is never another's."""

    def __init__(self, fd: int) -> None:
        """Watch a connection; one that has ended already is no mistake."""
        self._socket: socket.socket | None = None
        with suppress(OSError):
            self._socket = socket.socket(fileno=os.dup(fd))
        self._seen_bytes = 0

    def heard(self) -> None:
        """A whole message has come."""
        self._seen_bytes = self._received_bytes()

    @property
    def unseen_bytes(self) -> int:
        """What came since the last whole message; signs of life count, too."""
        return self._received_bytes() - self._seen_bytes

    def cut(self) -> None:
        """End the connection, and watch it no longer. ZeroMQ frees what it has of a message."""
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)
            self.close()

    def close(self) -> None:
        """Watch it no longer. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _received_bytes(self) -> int:
        if self._socket is None:
            return self._seen_bytes
        try:
            told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
        except OSError:  # it has ended
            return self._seen_bytes
        return int(_BYTES_RECEIVED.unpack(told)[0]) if len(told) == _BYTES_RECEIVED.size else self._seen_bytes
