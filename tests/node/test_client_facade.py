"""The tests of the facade in process, through a node: the same tests, the same outcomes."""

import pytest

from tests.helpers.node_client import caches_are_nodes  # noqa: F401
from tests.unit.test_cache import *  # noqa: F403

pytestmark = pytest.mark.usefixtures("caches_are_nodes")
