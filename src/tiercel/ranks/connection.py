"""One connection to a rank's process, on the cache's side: its socket, and whether the process still lives."""

import os
import select
import socket
import threading
from contextlib import suppress

from tiercel.ranks import sockets
from tiercel.ranks.messages import Hello, Message, Welcome, encode

_NO_FD = -1


class Connection:
    """A peer, which is a rank once it has said so.

    Attributes:
        hello: what it said of itself.
        ready: whether it has mapped the shared memory.
        ending: why it is about to end, "" as long as it is not.
        exit_fd: a file descriptor that becomes readable when its process has ended, -1 if the process is not visible.
    """

    def __init__(self, peer: socket.socket, process: int) -> None:
        """Take an accepted connection. process: its id, 0 if not visible."""
        self.socket = peer
        self.process = process
        self.hello: Hello | None = None
        self.ready = False
        self.ending = ""
        self.exit_fd = _NO_FD
        self._lock = threading.Lock()
        if process > 0:
            with suppress(OSError):  # it has ended already, which the socket tells as well
                self.exit_fd = os.pidfd_open(process)

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self.process}" if self.hello is None else f"rank {self.hello.rank} (process {self.process})"

    def send(self, message: Message, timeout_s: float) -> None:
        """Send a message. Raises OSError if it cannot be delivered in time."""
        self.send_bytes(encode(message), timeout_s)

    def send_bytes(self, data: bytes, timeout_s: float) -> None:
        """Send an encoded message. Raises OSError if it cannot be delivered in time."""
        with self._lock:  # so that nobody closes it, and somebody else's file gets its number, meanwhile
            sockets.send(self.socket, data, timeout_s)

    def welcome(self, message: Welcome, fds: list[int]) -> None:
        """Send the shared memory's files. Raises OSError."""
        with self._lock:
            socket.send_fds(self.socket, [encode(message)], fds, socket.MSG_NOSIGNAL)

    def await_exit(self, timeout_s: float) -> None:
        """Wait a bounded time until the process has ended, and with it what a GPU does for it."""
        if self.exit_fd != _NO_FD:
            poll = select.poll()
            poll.register(self.exit_fd, select.POLLIN)
            poll.poll(timeout_s * 1000)

    def finish(self) -> None:
        """Tell the rank that nothing more comes; it answers what it was asked and leaves."""
        with self._lock, suppress(OSError):  # it may have gone
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Release the files. Idempotent."""
        with self._lock:
            self.socket.close()
            if self.exit_fd != _NO_FD:
                os.close(self.exit_fd)
                self.exit_fd = _NO_FD
