"""Which blocks of which sequences are stored, in which tier and slot.

The index is native (native/core/index): a radix tree of runs over all tiers, with pins, reservations and eviction. It
decides and keeps count; it moves no bytes, knows no clock and starts no thread. The facade calls it, turns what it
answers into plans, and frees in the tiers what it reports as void. Beside it a ghost index (native/core/ghost) follows a
sample of the blocks without their bytes and tells what hit rate other capacities would have.
"""

from tiercel._native import (
    EVICTION_AGE_BOUNDS_S,
    EVICTION_POLICIES,
    FrequencySketch,
    GhostIndex,
    Index,
    IndexStats,
    Match,
    Reservation,
    TenantShare,
)

__all__ = [
    "EVICTION_AGE_BOUNDS_S",
    "EVICTION_POLICIES",
    "FrequencySketch",
    "GhostIndex",
    "Index",
    "IndexStats",
    "Match",
    "Reservation",
    "TenantShare",
]
