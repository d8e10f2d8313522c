"""Tiercel: a tiered KV cache for LLM serving.

Importing this module loads neither the native core nor anything else: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiercel.cache import Cache, CacheFacade, Found, KeyedCache, Launched, Outcome, Ticket, TransferResult
    from tiercel.config import CacheConfig, ModelConfig, load_config
    from tiercel.control import HitCurve, Lookup
    from tiercel.errors import (
        CacheClosedError,
        ConfigError,
        DeadlineError,
        DeviceError,
        DirectoryLockedError,
        FormatError,
        StaleTicketError,
        StatusError,
        ThrottledError,
        TiercelError,
        TierError,
        TierFailedError,
    )
    from tiercel.hashing import Sequence
    from tiercel.layout import BlockGeometry, EngineBlocks, EngineMemory
    from tiercel.node.client import NodeClient, connect
    from tiercel.plan import Segment
    from tiercel.ranks import RankAgent, RankGroup, RankTimeouts
    from tiercel.tiers.base import BlockStatus, TierName

__version__ = "0.1.0"

_HOMES = {
    "BlockGeometry": "layout",
    "BlockStatus": "tiers.base",
    "Cache": "cache",
    "CacheClosedError": "errors",
    "CacheConfig": "config",
    "CacheFacade": "cache",
    "ConfigError": "errors",
    "DeadlineError": "errors",
    "DeviceError": "errors",
    "DirectoryLockedError": "errors",
    "EngineBlocks": "layout",
    "EngineMemory": "layout",
    "FormatError": "errors",
    "Found": "cache",
    "HitCurve": "control",
    "KeyedCache": "cache",
    "Launched": "cache",
    "Lookup": "control",
    "ModelConfig": "config",
    "NodeClient": "node.client",
    "Outcome": "cache",
    "RankAgent": "ranks",
    "RankGroup": "ranks",
    "RankTimeouts": "ranks",
    "Segment": "plan",
    "Sequence": "hashing",
    "StaleTicketError": "errors",
    "StatusError": "errors",
    "ThrottledError": "errors",
    "Ticket": "cache",
    "TierError": "errors",
    "TierFailedError": "errors",
    "TierName": "tiers.base",
    "TiercelError": "errors",
    "TransferResult": "cache",
    "connect": "node.client",
    "load_config": "config",
}

__all__ = [
    "BlockGeometry",
    "BlockStatus",
    "Cache",
    "CacheClosedError",
    "CacheConfig",
    "CacheFacade",
    "ConfigError",
    "DeadlineError",
    "DeviceError",
    "DirectoryLockedError",
    "EngineBlocks",
    "EngineMemory",
    "FormatError",
    "Found",
    "HitCurve",
    "KeyedCache",
    "Launched",
    "Lookup",
    "ModelConfig",
    "NodeClient",
    "Outcome",
    "RankAgent",
    "RankGroup",
    "RankTimeouts",
    "Segment",
    "Sequence",
    "StaleTicketError",
    "StatusError",
    "ThrottledError",
    "Ticket",
    "TierError",
    "TierFailedError",
    "TierName",
    "TiercelError",
    "TransferResult",
    "__version__",
    "connect",
    "load_config",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
