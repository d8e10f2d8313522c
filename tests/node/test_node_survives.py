"""What one client, or a shortage in its process, must not do to a node and to the others."""

import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.helpers.node_client import WAIT_S, meeting_place, until
from tests.helpers.small_engine import MODEL, config
from tiercel import NodeClient, TiercelError, connect
from tiercel.node.endpoint import parse_endpoint
from tiercel.node.server import NodeServer


def test_clients_long_notes_keep_nobody_from_the_node_and_its_state(
    served: tuple[NodeServer, str], client: NodeClient
) -> None:
    for name in range(10):
        with connect(served[1], name=str(name), wait_s=WAIT_S) as noting:
            for number in range(7):
                noting.note(f"{number} " + "€" * 1990, kind="long")
    assert until(lambda: client.stats().activity.counters["fallbacks"].get("long") == 70)
    assert len(served[0].cache.stats().notes) >= 48
    with connect(served[1], wait_s=WAIT_S) as other:
        assert any("€" in note for note in other.stats().notes)


def test_a_client_that_closes_has_left_though_a_forked_child_holds_its_sockets(served: tuple[NodeServer, str]) -> None:
    client = connect(served[1], wait_s=WAIT_S)
    held, released = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(released)
        os.read(held, 1)
        os._exit(0)
    try:
        client.close()
        assert until(lambda: not served[0].status().clients)
    finally:
        os.close(held)
        os.close(released)
        os.waitpid(child, 0)


def test_a_settle_waits_for_no_other_call_of_its_client_beyond_its_time(client: NodeClient) -> None:
    with client._reports._turn(WAIT_S), ThreadPoolExecutor(1) as other:
        assert other.submit(client.settle, 0.05).result(WAIT_S) is False
    assert client.settle(WAIT_S)


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Leave so many descriptors to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count + 1, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for fd in taken[:count]:
            os.close(fd)
        del taken[:count]
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_a_node_without_descriptors_for_another_client_serves_the_others(
    served: tuple[NodeServer, str], client: NodeClient
) -> None:
    for left in range(2, 8):
        with descriptors_left(left), suppress(TiercelError):
            connect(served[1], wait_s=0.3).close()
    assert not served[0].failed
    assert client.settle(WAIT_S)


def test_a_client_reconnects_after_it_had_no_descriptors() -> None:
    with meeting_place() as endpoint:
        first = NodeServer(MODEL, config(host=64), parse_endpoint(endpoint))
        with connect(endpoint, wait_s=WAIT_S) as client:
            with descriptors_left(0):
                first.close()
                with descriptors_left(0):  # what the node and its client gave back
                    time.sleep(0.5)
            with NodeServer(MODEL, config(host=64), parse_endpoint(endpoint)):
                assert until(lambda: client.settle(0.1))
