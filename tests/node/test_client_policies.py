"""The tests of hit rates, priorities and what the engine holds itself, through a node."""

import pytest

from tests.helpers.node_client import caches_are_nodes  # noqa: F401
from tests.unit.test_hit_curve import *  # noqa: F403
from tests.unit.test_lookup_behind_engine import *  # noqa: F403
from tests.unit.test_priorities import *  # noqa: F403

pytestmark = pytest.mark.usefixtures("caches_are_nodes")

# A statistic of the node's own, of thousands of lookups.
del test_each_tier_is_told_what_it_serves_and_would_serve  # noqa: F821
