"""The most that any policy can hit: what curves and policies are held against.

Belady's MIN with bypass, a request at a time: after each request, of the blocks cached and those requested those stay
whose next use comes soonest; what will not be used again never enters. A block's next use is never after its
children's, so among equals the deeper one leaves and what stays is prefix-closed without being forced to. The pass is
native (native/core/curve/belady.hpp).
"""

import numpy as np
from numpy.typing import NDArray

from tiercel._native import Belady
from tiercel.tune.curves.lru import Capacities, as_capacities
from tiercel.tune.curves.requests import request_sizes, share
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import Trace


class BeladyBound:
    """The bound at any capacity. What it needs of the trace is found once; a capacity then costs little."""

    def __init__(self, trace: Trace) -> None:
        """Read the trace from its end. Memory: 8 bytes for each group of a request's blocks that are next used at once.

        Raises:
            ValueError: the blocks are no tree.
        """
        self._total = request_sizes(trace).totals[Weighting.BLOCKS]
        self._belady = Belady(trace.parents, trace.leaves)

    def hits(self, capacity: int) -> NDArray[np.int32]:
        """Return the leading blocks hit of each request: int32[num_requests]. Raises ValueError for a negative capacity."""
        return self._belady.hits(int(as_capacities([capacity])[0]))

    def hit_rate(self, capacity: int) -> float:
        """Return the share of all blocks that is hit, the most that there is."""
        return float(share(np.float64(self.hits(capacity).sum()).reshape(1), self._total)[0])

    def hit_rates(self, capacities: Capacities) -> NDArray[np.float64]:
        """Return the hit rate of each capacity in blocks: float64[len(capacities)]."""
        return np.array([self.hit_rate(int(capacity)) for capacity in capacities], np.float64)
