"""File descriptors of a node: how many its clients can make it open, and the process's limit raised to that."""

import resource
from typing import Final

from tiercel.config import CacheConfig
from tiercel.node.protocol import REGIONS_MAX

_OWN: Final = 256
"""Of the node itself: its cache's files, rings and memories, its threads' wakeups, its log, the door for other machines."""

_OF_CLIENT: Final = 2 + REGIONS_MAX + 1
"""Of a client beside its calls: its events, its process, and copies of the memories' files until it has read its welcome."""


def descriptors_needed(config: CacheConfig) -> int:
    """How many descriptors a node has open when as many clients as may come have as many connections as they may."""
    return _OWN + config.node_clients_max * (_OF_CLIENT + config.node_calls_max)


def raise_descriptor_limit(needed: int) -> str:
    """Raise this process's soft RLIMIT_NOFILE to what is needed, as far as its hard limit lets it; never lower it.

    Returns:
        What stands in the way and what helps, "" if nothing does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return ""
    reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if reachable > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    if reachable >= needed:
        return ""
    return (
        f"RLIMIT_NOFILE's hard limit is {hard}, and {needed} descriptors are needed for node_clients_max clients of "
        f"node_calls_max calls each, so that late ones are refused: raise it (LimitNOFILE={needed} in the unit, ulimit -Hn "
        f"{needed}, docker run --ulimit nofile={needed}), or lower these"
    )
