"""Nodes for the tests of their clients: in this process, or in one of its own that can be stopped and killed."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.small_engine import MODEL
from tiercel import Cache, CacheConfig, ModelConfig, NodeClient, connect
from tiercel.layout import SlotOrder
from tiercel.node.endpoint import parse_endpoint
from tiercel.node.server import NodeServer

WAIT_S = 20.0


@contextmanager
def meeting_place() -> Iterator[str]:
    """An endpoint whose path is short enough for a socket."""
    directory = tempfile.mkdtemp(prefix="tn-")
    try:
        yield f"ipc://{directory}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def node(config: CacheConfig, model: ModelConfig = MODEL) -> Iterator[tuple[NodeServer, str]]:
    """A node in this process, and its endpoint."""
    with meeting_place() as endpoint, NodeServer(model, config, parse_endpoint(endpoint)) as server:
        yield server, endpoint


def open_through_node(
    model: ModelConfig,
    config: CacheConfig,
    *,
    progress: object = None,
    order: SlotOrder = "token_head",
    shares_memory: bool = True,
) -> NodeClient:
    """A client of a node of its own, whose memory is always shared; closing it closes the node."""
    directory = tempfile.mkdtemp(prefix="tn-")
    try:
        server = NodeServer(model, config, parse_endpoint(f"ipc://{directory}"), order=order)
        client = connect(f"ipc://{directory}", model=model, wait_s=WAIT_S)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    leave = client.close

    def close() -> None:
        leave()
        server.close()
        shutil.rmtree(directory, ignore_errors=True)

    client.close = close  # type: ignore[method-assign]
    for name in ("_assembly", "_dispatcher"):  # tests of the cache in process look inside, and find the node's
        setattr(client, name, getattr(server.cache, name))
    return client


@pytest.fixture
def caches_are_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Cache.open` gives a node's client."""
    opening = Cache.open.__func__  # type: ignore[attr-defined]

    def open_one(cls: type[Cache], *arguments: Any, **named: Any) -> object:
        return open_through_node(*arguments, **named) if cls is Cache else opening(cls, *arguments, **named)

    monkeypatch.setattr(Cache, "open", classmethod(open_one))


class NodeProcess:
    """A node in a process of its own."""

    def __init__(self, endpoint: str, config: CacheConfig, model: ModelConfig = MODEL) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.helpers.node_client"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(endpoint, config, model, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        assert self._pipe.poll(WAIT_S), "the node does not start"
        self._pipe.recv()

    def signal(self, number: int) -> None:
        """Send a signal; SIGSTOP has stopped every thread when this returns."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            assert until(lambda: all(_is_stopped(thread) for thread in Path(f"/proc/{self.pid}/task").iterdir()))

    def kill(self) -> None:
        """End it with SIGKILL, and wait for that."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.close()
        self._pipe.close()


def _serve(endpoint: str, config: CacheConfig, model: ModelConfig, pipe: Connection) -> None:
    with NodeServer(model, config, parse_endpoint(endpoint)) as server:
        pipe.send(endpoint)
        server.wait()


def until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    """Wait until something holds; False if it does not in time."""
    stop_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > stop_at:
            return False
        time.sleep(0.005)
    return True


def num_files() -> int:
    """Files that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def held_here(part: str) -> list[str]:
    """What this process has open or mapped of a name."""
    files = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # what lists them is open as well
            files.append(str(entry.readlink()))
    return [line for line in (*files, *Path("/proc/self/maps").read_text().splitlines()) if part in line]


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
