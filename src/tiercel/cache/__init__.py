"""The cache of one machine: the facade and what it is put together from.

`facade` is what callers see. `assembly` makes the parts from a configuration, `dispatch` runs operations over them, `tickets`
are their handles, `reporting` tells metrics and status what happened.
"""

from tiercel.cache.common import CacheFacade
from tiercel.cache.facade import Cache
from tiercel.cache.keyed import Found, KeyedCache, Launched
from tiercel.cache.served import Costs, ServedCache
from tiercel.cache.tickets import Outcome, Ticket, TransferResult

__all__ = [
    "Cache",
    "CacheFacade",
    "Costs",
    "Found",
    "KeyedCache",
    "Launched",
    "Outcome",
    "ServedCache",
    "Ticket",
    "TransferResult",
]
