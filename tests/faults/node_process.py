"""The processes of the fault matrix of a node: forked from a parent that has no threads, so that each costs milliseconds."""

import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from tests.faults.node_worker import Board, end_at_defects, run_worker
from tests.faults.simulation_model import GEOMETRY_MODEL, Model
from tiercel import CacheConfig
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.server.running import run_node

READY = b"+"


class Forked:
    """A process that was forked from here."""

    def __init__(self, pid: int, name: str, board: Board) -> None:
        self.pid, self.name, self.board = pid, name, board
        self.may_end = False
        self._code: int | None = None

    def __repr__(self) -> str:
        return f"{self.name} {self.pid}"

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL and reap it. Idempotent."""
        if self.ended() is None:
            self.may_end = True
            os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def ended(self) -> int | None:
        """Its exit code, None while it lives."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def num_threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def num_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


def fork_client(endpoint: str, model: Model, seed: int) -> Forked:
    """Start a client that works."""
    board = Board()
    pid = os.fork()
    if pid == 0:
        run_worker(endpoint, f"worker-{seed}", model, board, seed)
    return Forked(pid, "client", board)


def fork_node(endpoint: LocalEndpoint, config: CacheConfig) -> Forked:
    """Start a node. Returns when it serves."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _run_node(endpoint, config, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        assert pipe.read(1) == READY, "the node does not start"
    return Forked(pid, "node", Board())


class _EndAtDefects(logging.Handler):
    """Ends the process where the node says that it met a defect."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(logging.Formatter().format(record) + "\n")
        sys.stderr.flush()
        os._exit(70)


def _run_node(endpoint: LocalEndpoint, config: CacheConfig, pipe: int) -> NoReturn:
    end_at_defects()
    logging.getLogger("tiercel").addHandler(_EndAtDefects(logging.CRITICAL))
    code = 1
    try:
        ended_by = run_node(GEOMETRY_MODEL, config, endpoint, on_ready=lambda _: _ready(pipe))
        code = 0 if ended_by == signal.SIGTERM else 1
    except BaseException:  # noqa: BLE001 - whatever it was, this process ends here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _ready(pipe: int) -> None:
    os.write(pipe, READY)
    os.close(pipe)
