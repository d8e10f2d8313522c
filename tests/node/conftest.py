"""A node in this process, and a client of it."""

from collections.abc import Iterator

import pytest

from tests.helpers.node_client import WAIT_S, node
from tests.helpers.small_engine import config
from tiercel import NodeClient, connect
from tiercel.node.server import NodeServer


@pytest.fixture
def served() -> Iterator[tuple[NodeServer, str]]:
    with node(config(host=64)) as started:
        yield started


@pytest.fixture
def client(served: tuple[NodeServer, str]) -> Iterator[NodeClient]:
    with connect(served[1], wait_s=WAIT_S) as connected:
        yield connected
