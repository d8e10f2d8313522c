"""Has one node run at an endpoint, whoever else wants that at the same time: engines that bring their node along.

The first one starts it; the others wait for that on a lock in the endpoint's directory.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tiercel.config import CacheConfig, ModelConfig
from tiercel.errors import DeadlineError, TiercelError
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.server.starting import start_node

_log = logging.getLogger(__name__)

LOCK_NAME: Final = "start.lock"
_LOOK_S = 0.1
_PAUSE_S, _PAUSE_MAX_S = 1.0, 60.0
"""How often a guard looks for its node, and how long it waits at most after a start that failed."""


def ensure_node(
    model: ModelConfig,
    config: CacheConfig,
    endpoint: LocalEndpoint,
    *,
    timeout_s: float,
    give_up: Callable[[], bool] = lambda: False,
) -> bool:
    """Start a node, unless one runs there or is being started.

    Args:
        give_up: asked while another process starts one whether to stop waiting for that.

    Returns:
        Whether it was started here.

    Raises:
        DeviceError: it ended at once; the message has the end of its log.
        DeadlineError: it does not serve after that time, whoever started it.
        ConfigError, OSError: the directory cannot be used.
    """
    stop_at = time.monotonic() + timeout_s
    endpoint.make()
    with _starting(endpoint.directory, stop_at, give_up) as allowed:
        if not allowed or _listens(endpoint):
            return False
        process = start_node(model, config, endpoint, timeout_s=max(_LOOK_S, stop_at - time.monotonic()))
    _log.info("started a node at %s, process %d", endpoint, process)
    return True


class NodeGuard:
    """A thread that starts a node again when there is none any more."""

    def __init__(self, is_there: Callable[[], bool], start: Callable[[Callable[[], bool]], None]) -> None:
        """Watch.

        Args:
            is_there: whether the node is, as far as its client knows.
            start: sees to it that one runs, or raises; told how to ask whether to give up.
        """
        self._is_there = is_there
        self._start = start
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tiercel-node-guard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no longer. Idempotent; a start that has begun goes on."""
        self._closing.set()

    def _watch(self) -> None:
        pause_s = _PAUSE_S
        while not self._closing.wait(pause_s):
            if self._is_there() or self._closing.is_set():
                pause_s = _PAUSE_S
                continue
            try:
                self._start(self._closing.is_set)
            except (TiercelError, OSError) as error:
                pause_s = min(_PAUSE_MAX_S, 2 * pause_s)
                _log.warning("no node could be started; the next attempt is in %g s: %s", pause_s, error)


def _listens(endpoint: LocalEndpoint) -> bool:
    connection = endpoint.connect(0.0)
    if connection is None:
        return False
    connection.close()
    return True


@contextmanager
def _starting(directory: Path, stop_at: float, give_up: Callable[[], bool]) -> Iterator[bool]:
    """Be the only one that starts a node there. Yields False if `give_up` says so first."""
    lock = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not (taken := _take(lock)) and not give_up():
            if time.monotonic() >= stop_at:
                raise DeadlineError(f"another process has not started a node in {directory} in time")
            time.sleep(_LOOK_S)
        yield taken
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
