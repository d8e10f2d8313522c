"""The tests of tensor-parallel ranks, through a node: a `RankGroup` that stands on a client's mapping of the node's memory."""

import pytest

from tests.helpers.node_client import caches_are_nodes  # noqa: F401
from tests.unit.test_ranks import *  # noqa: F403

pytestmark = pytest.mark.usefixtures("caches_are_nodes")
