"""Sockets between a cache and its ranks, or a node and its clients: in a directory of its owner's alone, and both ends of the
same user.

Datagrams in order (SOCK_SEQPACKET), so that one message is one read, and file descriptors can go with it.
"""

import os
import select
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

from tiercel.config.paths import utf8_path
from tiercel.errors import ConfigError
from tiercel.ranks.messages import MESSAGE_BYTES_MAX

SOCKET_NAME = "ranks.sock"
_PATH_BYTES_MAX = 107
_RETRY_S = 0.02
_SEND_BUFFER_BYTES = 1 << 20
_CREDENTIALS = struct.Struct("3i")


def listen(directory: Path, name: str = SOCKET_NAME) -> socket.socket:
    """Listen in a directory, which is made if it is missing, for nobody but this user.

    Args:
        name: the socket's, in that directory.

    Raises:
        ConfigError: others may enter the directory, its path is too long, or another cache listens there.
        OSError: the socket cannot be made.
    """
    make_private(directory)
    path = _socket_path(directory, name)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(path)
        Path(path).chmod(0o600)
        listener.listen(64)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(
    directory: Path, timeout_s: float, give_up: Callable[[], bool], name: str = SOCKET_NAME
) -> socket.socket | None:
    """Connect to whoever listens in a directory, or will within a time.

    Args:
        give_up: asked between attempts whether to stop.
        name: the socket's, in that directory.

    Returns:
        The connection, or None if nobody listened in time.

    Raises:
        ConfigError: others may enter the directory, its path is too long, or another user listens there.
    """
    path, stop_at = _socket_path(directory, name), time.monotonic() + timeout_s
    while not give_up():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            connection.connect(path)
            _check_private(directory)
            peer_process(connection)
            return _prepared(connection)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            connection.close()
        except BaseException:
            connection.close()
            raise
        if time.monotonic() >= stop_at:
            break
        time.sleep(_RETRY_S)
    return None


def is_crowded(directory: Path, name: str = SOCKET_NAME) -> bool:
    """Whether as many connections wait for who listens in a directory as may, since it takes none: it was stopped, say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(_socket_path(directory, name))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def accept(listener: socket.socket) -> tuple[socket.socket, int] | None:
    """Take one connection and its process's id, 0 if that is not visible from here; None if nobody waits any more.

    Raises:
        ConfigError: the peer is another user's. Its connection was closed.
    """
    try:
        connection, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    try:
        return _prepared(connection), peer_process(connection)
    except BaseException:
        connection.close()
        raise


def peer_process(connection: socket.socket) -> int:
    """Return the id of the process at the other end. Raises ConfigError if it is another user's."""
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid != os.geteuid():
        raise ConfigError(f"process {pid} is of user {uid}, this one of {os.geteuid()}: run both as the same user")
    return int(pid)


def send(connection: socket.socket, data: bytes, timeout_s: float) -> None:
    """Send one message, waiting a bounded time if the other side does not read. Raises OSError, TimeoutError among others."""
    try:
        connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return
    except BlockingIOError:
        pass  # its buffer is full
    stop_at = time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    while (left_s := stop_at - time.monotonic()) > 0:
        poll.poll(max(1.0, left_s * 1000))
        try:
            connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return
        except BlockingIOError:
            continue
    raise TimeoutError(f"does not read what it is sent for {timeout_s} s")


def receive(connection: socket.socket, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes | None:
    """Return one message, b"" at the end of the connection, None if nothing has come. Raises OSError.

    A message of more than bytes_max comes back cut, but still too long.
    """
    try:
        return connection.recv(bytes_max + 1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None


def _prepared(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return connection


def _socket_path(directory: Path, name: str) -> str:
    path = directory / name
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise ConfigError(f"{utf8_path(path)}: longer than the {_PATH_BYTES_MAX} bytes of a socket's path")
    return os.fspath(path)


def make_private(directory: Path) -> None:
    """Make a directory that nobody but this user may enter, or check that it is one. Raises ConfigError, OSError."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        _check_private(directory)


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{utf8_path(directory)}: must be a directory of user {os.geteuid()} that nobody else may enter (chmod 700)"
        )


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that has ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:
            pass  # so many wait there that somebody listens
    raise ConfigError(f"{path}: another cache listens there; give each a directory of its own")
