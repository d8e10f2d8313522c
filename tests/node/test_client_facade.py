"""The tests of the facade in process, through a node: the same tests, the same outcomes."""

import pytest

from tests.helpers.node_client import caches_are_nodes  # noqa: F401
from tests.unit.test_cache import *  # noqa: F403

pytestmark = pytest.mark.usefixtures("caches_are_nodes")

# The node learns what prefill costs a moment later: test_client_node has this one.
del test_load_policy_never_loads_nothing_and_auto_follows_the_measured_costs  # noqa: F821
