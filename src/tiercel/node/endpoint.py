"""Where a node is: `ipc:///DIRECTORY` on this host, `tcp://HOST:PORT` for control from others.

A node listens in a directory of its owner's alone, and holds a lock on that directory as long as it lives.
"""

import fcntl
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tiercel.config.paths import expanded
from tiercel.errors import ConfigError
from tiercel.ranks import sockets
from tiercel.telemetry.status import runtime_directory

SOCKET_NAME: Final = "node.sock"
_SETTING = "server_recv_port"


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A directory on this host, with the socket `SOCKET_NAME` in it."""

    directory: Path

    def __str__(self) -> str:
        return f"ipc://{self.directory}"

    def make(self) -> None:
        """Make the directory, or check that it is this user's alone. Raises ConfigError, with the remedy."""
        try:
            sockets.make_private(self.directory)
        except OSError as error:
            raise ConfigError(
                f"{self}: a node cannot be there ({error.strerror}: {error.filename}); name a directory of this user's as "
                f"{_SETTING}, or with --endpoint"
            ) from error

    def connect(self, timeout_s: float, give_up: Callable[[], bool] = lambda: False) -> socket.socket | None:
        """Connect to the node, or to the one that listens there in time. Returns None if none did.

        Args:
            give_up: asked between attempts whether to stop.

        Raises:
            ConfigError: others may enter the directory, its path is too long, or another user listens there.
        """
        return sockets.connect(self.directory, timeout_s, give_up, SOCKET_NAME)

    def is_crowded(self) -> bool:
        """Whether a process listens there and takes no connections: as many wait as may."""
        return sockets.is_crowded(self.directory, SOCKET_NAME)


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """An address on the network; without memory, and only with CURVE keys."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


Endpoint = LocalEndpoint | TcpEndpoint


def parse_endpoint(text: str) -> Endpoint:
    """Read an address. Raises ConfigError for anything but ipc:///DIRECTORY and tcp://HOST:PORT."""
    kind, found, rest = text.partition("://")
    if found and kind == "ipc" and rest.startswith(("/", "~")) and rest.strip("/"):
        return LocalEndpoint(Path(os.path.normpath(expanded(_SETTING, rest))))
    host, colon, port = rest.rpartition(":")
    if found and kind == "tcp" and host and colon and port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
        return TcpEndpoint(host.removeprefix("[").removesuffix("]"), int(port))
    raise ConfigError(f"{text!r} is no address of a node: give ipc:///DIRECTORY, or tcp://HOST:PORT for remote control")


def default_endpoint() -> LocalEndpoint:
    """Where a node of this user is if nobody says otherwise."""
    return LocalEndpoint(runtime_directory() / "node")


class Listener:
    """A node's place: the lock on its directory, and the socket in it, until `close` or the process's end."""

    def __init__(self, endpoint: LocalEndpoint) -> None:
        """Take the place.

        Raises:
            ConfigError: another node has it, others may enter the directory, or its path is too long.
            OSError: the socket cannot be made.
        """
        self.endpoint = endpoint
        directory = endpoint.directory
        endpoint.make()
        self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(f"another node runs at {endpoint}; give each a directory of its own") from error
            self.socket = sockets.listen(directory, SOCKET_NAME)
        except BaseException:
            os.close(self._lock)
            raise

    def withdraw(self) -> None:
        """Remove the socket: nobody finds the node any more. The place stays taken. Idempotent."""
        if self.socket.fileno() >= 0:
            (self.endpoint.directory / SOCKET_NAME).unlink(missing_ok=True)
            self.socket.close()

    def close(self) -> None:
        """Give the place up. Idempotent."""
        self.withdraw()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
