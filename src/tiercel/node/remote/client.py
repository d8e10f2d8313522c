"""A remote client of a node: counts hits, prefetches, and asks how it is, over TCP. It never sees a byte of a block.

Each calling thread has a connection for its call, so no call waits for another; ZeroMQ connects again by itself. Every call has
a deadline, and what was not sent by then is never sent.
"""

import builtins
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Condition, RLock
from typing import Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

import tiercel.errors
from tiercel.errors import CacheClosedError, DeadlineError, TiercelError
from tiercel.hashing import Sequence
from tiercel.node.calls import (
    AskHitCurve,
    AskStats,
    AskStatus,
    CountHits,
    Failed,
    HitCurveAnswer,
    Hits,
    Okay,
    OpenNamespace,
    PrefetchKeys,
    Reset,
    Root,
    Stats,
    Status,
)
from tiercel.node.codec import Answer, Call, decode_for_client, encode
from tiercel.node.protocol import MessageError
from tiercel.node.remote.keys import ClientKeys
from tiercel.node.remote.sockets import REQUEST_BYTES, Socket, check_endpoint, missing_keys, set_common, zmq
from tiercel.telemetry.snapshot import StatusSnapshot

KEYS_MAX: Final = 4096
"""Leading blocks of a prompt that a call looks at."""
_HEARTBEAT_S = 5.0
_HANDSHAKE_S = 5.0
_RETRY_MS = (100, 1000)

_Answer = TypeVar("_Answer", bound=Answer)


class RemoteNode:
    """A node at another machine. Thread-safe; a context manager.

    Args:
        endpoint: tcp://HOST:PORT. Nothing is connected before the first call.
        keys: as `read_client_keys` returns them. None is refused, with the remedy.
        timeout_s: longest wait of a call that names none.
        calls_max: calls under way at the same time; a further one waits for one of them, within its own deadline.

    Raises:
        ConfigError: the endpoint is none of TCP, or there are no keys.

    Every call raises DeadlineError when no answer came in time, CacheClosedError after `close`, PermissionError when the keys do
    not allow it, ThrottledError when the node has too many calls of this client, and what the node's cache raises.
    """

    def __init__(self, endpoint: str, keys: ClientKeys | None, *, timeout_s: float = 5.0, calls_max: int = 8) -> None:
        self._endpoint = check_endpoint(endpoint)
        if keys is None:
            raise missing_keys(endpoint)
        self._keys = keys
        self._timeout_s = timeout_s
        self._calls_max = calls_max
        self._numbers = count(1)
        self._context = zmq.Context()
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._idle: list[Socket] = []
        self._busy = 0
        self._closed = False

    def count_hits(self, tokens: npt.ArrayLike, namespace: str = "", *, timeout_s: float | None = None) -> int:
        """Return how many leading tokens are stored in whole blocks, of the first `KEYS_MAX` blocks. Pins nothing.

        Args:
            tokens: int32[num_tokens].
        """
        stop_at = self._stop_at(timeout_s)
        root = self._ask(OpenNamespace(namespace), Root, stop_at)
        answer = self._ask(CountHits(namespace, _keys(root, tokens)), Hits, stop_at)
        return answer.num_blocks * root.tokens_per_block

    def prefetch(
        self, tokens: npt.ArrayLike, namespace: str = "", *, within_s: float = 30.0, timeout_s: float | None = None
    ) -> int:
        """Start to bring the leading stored blocks to the fastest tier, within a time. Does not wait for it.

        Returns:
            How many leading tokens are stored, as `count_hits` does.
        """
        stop_at = self._stop_at(timeout_s)
        root = self._ask(OpenNamespace(namespace), Root, stop_at)
        answer = self._ask(PrefetchKeys(namespace, _keys(root, tokens), within_s), Hits, stop_at)
        return answer.num_blocks * root.tokens_per_block

    def status(self, *, timeout_s: float | None = None) -> Status:
        """Ask for clients, pins and queues."""
        return self._ask(AskStatus(), Status, self._stop_at(timeout_s))

    def stats(self, *, timeout_s: float | None = None) -> StatusSnapshot:
        """Ask for what `Cache.stats` tells."""
        answer = self._ask(AskStats(), Stats, self._stop_at(timeout_s))
        return msgspec.json.decode(answer.snapshot, type=StatusSnapshot)

    def hit_curve(self, *, timeout_s: float | None = None) -> object:
        """Ask for what `Cache.hit_curve` tells, as plain data."""
        answer = self._ask(AskHitCurve(None), HitCurveAnswer, self._stop_at(timeout_s))
        return msgspec.json.decode(answer.curve)

    def reset(self, *, timeout_s: float | None = None) -> None:
        """Have every block forgotten; the keys must have the right `reset`."""
        self._ask(Reset(), Okay, self._stop_at(timeout_s))

    def close(self) -> None:
        """End all connections; waits for calls under way, each of which has its deadline. Idempotent."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._busy == 0)
            while self._idle:
                self._idle.pop().close(linger=0)
        self._context.term()

    def __enter__(self) -> "RemoteNode":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop_at(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)

    def _ask(self, call: Call, kind: type[_Answer], stop_at: float) -> _Answer:
        number = next(self._numbers).to_bytes(REQUEST_BYTES, "little")
        with self._connection(stop_at) as connection:
            if not connection.poll(_left_ms(stop_at), zmq.POLLOUT):
                raise self._too_late()
            connection.send_multipart([number, encode(call)], zmq.NOBLOCK)
            datagram = self._answer_of(connection, number, stop_at)
        try:
            answer = decode_for_client(datagram)
        except MessageError as error:
            raise TiercelError(f"{self._endpoint} answered with what is no message: {error}") from error
        if isinstance(answer, Failed):
            raise _error_of(answer)
        if not isinstance(answer, kind):
            raise TiercelError(f"{self._endpoint} answered {type(call).__name__} with {type(answer).__name__}")
        return answer

    def _answer_of(self, connection: Socket, number: bytes, stop_at: float) -> bytes:
        while connection.poll(_left_ms(stop_at), zmq.POLLIN):
            parts = connection.recv_multipart(zmq.NOBLOCK)
            if len(parts) == 2 and parts[0] == number:
                return parts[1]
        raise self._too_late()

    def _too_late(self) -> DeadlineError:
        return DeadlineError(
            f"no answer from {self._endpoint} in time: is the node running there, is {self._keys.name!r} among the clients that "
            "its keys list, and are these keys of that node?"
        )

    @contextmanager
    def _connection(self, stop_at: float) -> Iterator[Socket]:
        """Lend a connection. One on which a call failed is not used again: what comes later would be another call's."""
        with self._lock:
            free = self._changed.wait_for(
                lambda: self._closed or self._busy < self._calls_max, max(0.0, stop_at - time.monotonic())
            )
            if self._closed:
                raise CacheClosedError(f"the connection to {self._endpoint} was closed")
            if not free:
                raise self._too_late()
            self._busy += 1
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except BaseException:
            if connection is not None:
                connection.close(linger=0)
            self._give_back(None)
            raise
        self._give_back(connection)

    def _give_back(self, connection: Socket | None) -> None:
        with self._lock:
            self._busy -= 1
            if connection is not None:
                self._idle.append(connection)
            self._changed.notify_all()

    def _connect(self) -> Socket:
        connection = self._context.socket(zmq.DEALER)
        set_common(connection, heartbeat_s=_HEARTBEAT_S, handshake_s=_HANDSHAKE_S)
        connection.setsockopt(zmq.RECONNECT_IVL, _RETRY_MS[0])
        connection.setsockopt(zmq.RECONNECT_IVL_MAX, _RETRY_MS[1])
        connection.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server_key.encode())
        connection.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public_key.encode())
        connection.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret_key.encode())
        connection.connect(self._endpoint)
        return connection


def _left_ms(stop_at: float) -> int:
    return max(0, round((stop_at - time.monotonic()) * 1000))


def _keys(root: Root, tokens: npt.ArrayLike) -> bytes:
    """Hash the leading blocks of a prompt under a namespace's root."""
    if root.tokens_per_block == 0:
        raise TiercelError("the node did not tell how many tokens a block has: run the same release on both sides")
    leading = np.ascontiguousarray(tokens, np.int32)[: KEYS_MAX * root.tokens_per_block]
    sequence = Sequence(root.root, root.tokens_per_block)
    sequence.extend(leading)
    return sequence.keys().tobytes()


def _error_of(failed: Failed) -> Exception:
    """Return what the node raised: a class of `tiercel.errors`, or one of the built-in exceptions that it may tell."""
    kind = getattr(tiercel.errors, failed.error, None) or getattr(builtins, failed.error, None)
    told = (TiercelError, ValueError, OSError, RuntimeError)
    if isinstance(kind, type) and issubclass(kind, told) and not issubclass(kind, UnicodeError):
        return kind(failed.text)
    return TiercelError(f"{failed.error}: {failed.text}")
