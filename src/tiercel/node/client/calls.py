"""The connections of a client for its calls: one call at a time on each, so that none waits for another. Used by `link`."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tiercel import errors
from tiercel._native import NodeCall
from tiercel.errors import CacheClosedError, DeviceError, ThrottledError, TiercelError
from tiercel.node.calls import Failed
from tiercel.node.codec import Answer, decode_for_client, encode
from tiercel.node.protocol import Message, MessageError

_CALLERS = {"ValueError": ValueError, "TypeError": TypeError}
"""Errors that are a caller's mistake, by name."""


class NodeGoneError(Exception):
    """The node has ended or does not answer. Never leaves `node.client`."""


class CallPool:
    """Call connections that are idle, and a bound on those that are not. Thread-safe."""

    def __init__(self, connect: Callable[[float], NodeCall], calls_max: int) -> None:
        """connect: makes one more, in at most so many seconds; raises OSError. calls_max: so many at most."""
        self._connect = connect
        self._calls_max = calls_max
        # Entered as it is: a condition is entered by Python code, in which a signal's exception would leave the lock held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._idle: list[NodeCall] = []
        self._num_open = 0
        self._closed = False

    @contextmanager
    def call(self, timeout_s: float) -> Iterator[NodeCall]:
        """Lend a connection. One whose body raises is closed: an answer that was not taken would be the next call's.

        Raises:
            OSError: none can be had, or none any more.
            ThrottledError: all were in use all the time.
        """
        call = self._take(timeout_s)
        try:
            yield call
        except BaseException:
            self._drop(call)
            raise
        self._give(call)

    def close(self) -> None:
        """Close what is idle now, and the others when they come back. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._num_open -= len(idle)
            self._changed.notify_all()
        for call in idle:
            call.close()

    def _take(self, timeout_s: float) -> NodeCall:
        stop_at = time.monotonic() + timeout_s
        with self._lock:
            while not self._idle and self._num_open >= self._calls_max and not self._closed:
                if not self._changed.wait(max(0.0, stop_at - time.monotonic())):
                    raise ThrottledError(
                        f"all {self._calls_max} connections to the node are in use; raise node_calls_max"
                    )
            if self._closed:
                raise ConnectionResetError("the connection to the node has ended")
            if self._idle:
                return self._idle.pop()
            self._num_open += 1
        try:
            return self._connect(max(0.01, stop_at - time.monotonic()))
        except BaseException:
            self._forget()
            raise

    def _give(self, call: NodeCall) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(call)
                self._changed.notify()
                return
        self._drop(call)

    def _drop(self, call: NodeCall) -> None:
        call.close()
        self._forget()

    def _forget(self) -> None:
        with self._lock:
            self._num_open -= 1
            self._changed.notify()


def ask(call: NodeCall, message: Message, timeout_s: float) -> Answer | Failed:
    """Ask on a connection and return the answer. Raises OSError; the connection is of no use then."""
    try:
        answer = decode_for_client(call.request(encode(message), timeout_s))
    except MessageError as error:
        raise ConnectionAbortedError(f"the node cannot be understood: {error}") from error
    if isinstance(answer, Answer):
        return answer
    raise ConnectionAbortedError(f"the node answered with {type(answer).__name__}")


def checked(answer: Answer | Failed) -> Answer:
    """Return an answer, or raise the error of ours that the call failed with in the node; NodeGoneError if that one is ending."""
    if not isinstance(answer, Failed):
        return answer
    if answer.error == CacheClosedError.__name__:  # this client's cache is open
        raise NodeGoneError(f"the node is ending: {answer.text}")
    kind = _CALLERS.get(answer.error) or getattr(errors, answer.error, None)
    if isinstance(kind, type) and issubclass(kind, (TiercelError, ValueError, TypeError)):
        raise kind(answer.text)
    raise DeviceError(f"the node failed: {answer.error}: {answer.text}")
