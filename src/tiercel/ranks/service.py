"""The thread that listens to ranks: who joins, what they answer, who dies. Used by `group` only.

It sleeps until a socket has something to say or a process has ended. A peer that breaks the protocol is cut off; before it
has joined, that touches nobody else.
"""

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from tiercel.errors import ConfigError, DeadlineError, DeviceError
from tiercel.layout.geometry import difference
from tiercel.ranks import sockets
from tiercel.ranks.connection import Connection
from tiercel.ranks.copies import CopyTable
from tiercel.ranks.messages import (
    Done,
    Hello,
    MessageError,
    Ready,
    Refused,
    ToCache,
    Welcome,
    decode_for_cache,
    shortened,
)
from tiercel.tiers.memory import SharedMemory

_log = logging.getLogger(__name__)

_STRANGERS_MAX = 64
"""Connections that have not said who they are; one more ends the oldest."""

_EXIT_S = 0.5
"""Longest wait for a process whose connection has ended: a GPU may still copy for it until it is gone."""

_SEND_S = 0.25

_LEFT = "it has left"
"""What is said of a rank that ended in order."""


class RankService:
    """Accepts the ranks of one group and reads their answers."""

    def __init__(
        self,
        listener: socket.socket,
        welcome: Welcome,
        shared: Sequence[SharedMemory],
        *,
        geometry: Mapping[str, str | int],
        num_ranks: int,
        copies: CopyTable,
        check: Callable[[Sequence[Hello]], None],
    ) -> None:
        """Start the thread.

        Args:
            check: raises ConfigError if the ranks, in order, do not fit together.
        """
        self._listener = listener
        self._welcome = welcome
        self._shared = tuple(shared)
        self._geometry = dict(geometry)
        self._num_ranks = num_ranks
        self._copies = copies
        self._check = check
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._ranks: dict[int, Connection] = {}
        self._strangers: list[Connection] = []
        self._failure: Exception | None = None
        self._complete = False
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._begin_closing)
        self._thread = threading.Thread(target=self._serve, name="tiercel-ranks", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until every rank has joined. Raises as `RankGroup.wait_ready`."""
        with self._lock:
            self._changed.wait_for(lambda: self._complete or self._failure is not None, timeout_s)
            if self._failure is not None:
                raise type(self._failure)(str(self._failure))
            if not self._complete:
                lacking = [n for n in range(self._num_ranks) if n not in self._ranks or not self._ranks[n].ready]
                raise DeadlineError(f"ranks {lacking} of {self._num_ranks} have not joined after {timeout_s:g} s")

    def connections(self, ranks: Sequence[int]) -> list[Connection]:
        """Return the connections of some ranks. Raises DeviceError if the group is not complete, or not any more."""
        with self._lock:
            if self._failure is not None:
                raise DeviceError(str(self._failure))
            if not self._complete or self._closing:
                raise DeviceError("the group of ranks is closed" if self._closing else "not all ranks have joined yet")
            return [self._ranks[rank] for rank in ranks]

    @property
    def failure(self) -> str:
        """Why the group cannot be used any more, or ""."""
        return "" if self._failure is None else str(self._failure)

    def close(self, timeout_s: float) -> None:
        """Let no rank in any more and wait a bounded time for those here to leave. Idempotent. What a silent one was asked for
        stays open until it answers or dies; the thread ends then."""
        with self._lock:
            first, self._closing = not self._closing, True
        if first:
            self._waker.close()
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        try:
            while not self._closing or self._ranks or self._waker_is_open():
                for key, _ in self._selector.select():
                    key.data()
        finally:
            for connection in [*self._ranks.values(), *self._strangers]:
                self._lose(connection, "the cache listens to ranks no more")
            self._selector.close()
            self._listener.close()
            self._woken.close()

    def _waker_is_open(self) -> bool:
        return self._woken.fileno() in self._selector.get_map()

    def _begin_closing(self) -> None:
        self._selector.unregister(self._woken)
        self._selector.unregister(self._listener)
        for connection in list(self._strangers):
            self._lose(connection, "the group is closed")
        for connection in self._ranks.values():
            connection.finish()

    def _accept(self) -> None:
        try:
            accepted = sockets.accept(self._listener)
        except (ConfigError, OSError) as error:
            _log.warning("a connection was refused: %s", error)
            return
        if accepted is None:
            return
        connection = Connection(*accepted)
        self._strangers.append(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, partial(self._read, connection))
        if len(self._strangers) > _STRANGERS_MAX:
            self._lose(self._strangers[0], "it has not said who it is, and others wait")

    def _read(self, connection: Connection) -> bool:
        """Take one message. Returns whether there may be more."""
        if connection.socket.fileno() < 0:
            return False  # lost by an event of the same round
        data: bytes | None = None
        try:
            data = sockets.receive(connection.socket)
            if data:
                self._handle(connection, decode_for_cache(data))
            elif data is not None:
                self._lose(connection, connection.ending or "its process has ended")
        except OSError as error:
            self._lose(connection, f"its connection failed: {error}")
        except MessageError as error:
            self._refuse(connection, f"it sent {error}")
        return bool(data) and connection.socket.fileno() >= 0

    def _handle(self, connection: Connection, message: ToCache) -> None:
        hello = connection.hello
        if isinstance(message, Hello):
            self._join(connection, message)
        elif hello is None:
            raise MessageError("something before it said who it is")
        elif isinstance(message, Done):
            self._copies.answer(message.number, hello.rank, message.failure)
        elif isinstance(message, Ready):
            self._enter_ready(connection)
        else:
            connection.ending = message.reason if isinstance(message, Refused) else connection.ending or _LEFT

    def _join(self, connection: Connection, hello: Hello) -> None:
        if connection.hello is not None:
            raise MessageError("who it is for the second time")
        if hello.rank >= self._num_ranks or hello.rank in self._ranks or self._closing:
            self._refuse(connection, f"rank {hello.rank} is not wanted: {self._num_ranks} ranks, each once")
            return
        odd = difference(hello.geometry, self._geometry)
        if odd:
            reason = f"rank {hello.rank} has {odd}"
            self._fail(ConfigError(reason))
            self._refuse(connection, reason)
            return
        connection.hello = hello
        self._strangers.remove(connection)
        with self._lock:
            self._ranks[hello.rank] = connection
        if connection.exit_fd >= 0:
            self._selector.register(connection.exit_fd, selectors.EVENT_READ, partial(self._exited, connection))
        try:
            connection.welcome(self._welcome, [memory.fd for memory in self._shared])
        except (OSError, ValueError) as error:  # ValueError: the cache was closed
            self._lose(connection, f"it could not be given the memory: {error}")

    def _exited(self, connection: Connection) -> None:
        """Read what a process that has ended said last, and then its end."""
        while self._read(connection):
            pass
        self._lose(connection, "its process has ended")  # though a child of its may hold the socket

    def _enter_ready(self, connection: Connection) -> None:
        connection.ready = True
        joined = [self._ranks[n] for n in range(self._num_ranks) if n in self._ranks]
        if len(joined) < self._num_ranks or not all(rank.ready for rank in joined):
            return
        try:
            self._check([rank.hello for rank in joined if rank.hello is not None])
        except ConfigError as error:
            self._fail(error)
            for rank in joined:
                self._refuse(rank, str(error))
            return
        with self._lock:
            self._complete = True
            self._changed.notify_all()

    def _refuse(self, connection: Connection, reason: str) -> None:
        """Have nothing more to do with a peer. A rank that may be copying is done with when it has left, or has ended."""
        _log.warning("%s is cut off: %s", connection.name, reason)
        with suppress(OSError):  # it may have gone
            connection.send(Refused(shortened(reason)), _SEND_S)
        if self._complete and connection.hello is not None and not connection.ending:
            connection.ending = reason
            self._fail(DeviceError(f"{connection.name}: {reason}"))
        elif not connection.ending:
            self._lose(connection, reason)

    def _lose(self, connection: Connection, reason: str) -> None:
        """End a connection. A rank's copies fail, and the group with them."""
        if connection.socket.fileno() < 0:
            return
        self._selector.unregister(connection.socket)
        hello = connection.hello
        if hello is None:
            self._strangers.remove(connection)
        else:
            if not self._closing:
                level = logging.INFO if connection.ending == _LEFT else logging.ERROR
                self._fail(DeviceError(f"{connection.name}: {reason}"), level)
            if self._complete and not connection.ending:
                connection.await_exit(_EXIT_S)
            if connection.exit_fd >= 0:
                self._selector.unregister(connection.exit_fd)
            with self._lock:
                del self._ranks[hello.rank]
        connection.close()
        if hello is not None:
            self._copies.lose(hello.rank, reason)

    def _fail(self, failure: Exception, level: int = logging.ERROR) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure
                _log.log(level, "a group of ranks cannot be used any more: %s", failure)
            self._changed.notify_all()
