"""The tests of callers' mistakes in process, through a node: the same errors, the same texts."""

import pytest

from tests.helpers.node_client import caches_are_nodes  # noqa: F401
from tests.unit.test_cache_edges import *  # noqa: F403

pytestmark = pytest.mark.usefixtures("caches_are_nodes")

# Of opening a cache, not of using one.
del test_arguments_of_another_kind_are_told_apart_by_name  # noqa: F821
# It fills the lanes by hand; test_server.py has the like of it.
del test_a_prefetch_that_is_throttled_keeps_no_pins  # noqa: F821
