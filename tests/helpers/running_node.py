"""What tests ask and do to a node in a process of its own, that engines use or have started."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tiercel import StatusError, TiercelError
from tiercel.node.asking import ask_node
from tiercel.node.calls import AskStats, AskStatus, ClientStatus, Stats, Status
from tiercel.node.endpoint import LocalEndpoint, parse_endpoint
from tiercel.telemetry.snapshot import StatusSnapshot

WAIT_S = 60.0


def node_status(endpoint: str) -> Status | None:
    """What a node says of itself; None if none is there, or it ends just now."""
    with suppress(TiercelError, OSError):
        answer = ask_node(_local(endpoint), AskStatus())
        assert isinstance(answer, Status)
        return answer
    return None


def node_clients(endpoint: str) -> list[ClientStatus]:
    """Who uses the node's memory; none if it is not there."""
    status = node_status(endpoint)
    return [] if status is None else [client for client in status.clients if client.name != "tiercel"]


def node_snapshot(endpoint: str) -> StatusSnapshot:
    """What `tiercel stats` shows of a node's cache."""
    answer = ask_node(_local(endpoint), AskStats())
    assert isinstance(answer, Stats)
    return msgspec.json.decode(answer.snapshot, type=StatusSnapshot)


def node_process(endpoint: str) -> int:
    """The process that is the node. Raises StatusError if there is none."""
    status = node_status(endpoint)
    if status is None:
        raise StatusError(f"no node at {endpoint}")
    return status.process


def kill_node(endpoint: str, number: int = signal.SIGKILL) -> int:
    """Send the node a signal; its process's number."""
    process = node_process(endpoint)
    os.kill(process, number)
    return process


@contextmanager
def place_of_a_node() -> Iterator[str]:
    """An endpoint whose path is short enough for a socket; whatever node runs there in the end is killed."""
    directory = tempfile.mkdtemp(prefix="tn-")
    endpoint = f"ipc://{directory}"
    try:
        yield endpoint
    finally:
        with suppress(StatusError, ProcessLookupError):
            kill_node(endpoint)
        for process in _started_for(endpoint):  # and does not answer yet
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


def _started_for(endpoint: str) -> list[int]:
    """Processes whose command line names an endpoint, but this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if endpoint.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    """Wait until something holds; False if it does not in time."""
    stop_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > stop_at:
            return False
        time.sleep(0.02)
    return True


def _local(endpoint: str) -> LocalEndpoint:
    found = parse_endpoint(endpoint)
    assert isinstance(found, LocalEndpoint)
    return found
