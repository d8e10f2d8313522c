"""Waiting for one datagram of a node. Used by `joining` and `link`."""

import os
import select
import socket
import time
from typing import Final

from tiercel.node.protocol import MESSAGE_BYTES_MAX

SEND_S: Final = 1.0
"""Longest wait to send a message to a node that does not read."""


def receive(connection: socket.socket, stop_at: float, fds_max: int = 0) -> tuple[bytes, list[int]]:
    """Wait for one message and the files that come with it, which the caller closes.

    Raises:
        TimeoutError: none came before that time, of the monotonic clock.
        ConnectionResetError: the connection has ended.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(max(1.0, (stop_at - time.monotonic()) * 1000)):
        raise TimeoutError("it was found, but did not answer in time")
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX + 1, fds_max, flags)
    if not data:
        for fd in fds:
            os.close(fd)
        raise ConnectionResetError("it has ended")
    return data, fds
