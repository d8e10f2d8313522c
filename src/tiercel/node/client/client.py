"""A cache that another process has, with the facade of one in process.

    with tiercel.connect("ipc:///run/tiercel") as cache:
        ticket = cache.load(cache.sequence(prompt), engine.blocks(ids))

The node finds, plans, keeps and evicts; this process copies its own blocks to and from memory that both map, and decides what is
worth loading. What is different from `Cache`: loads are not `by_layer`; when the node is gone lookups find nothing, loads end as
missing and stores as without room, until it is back; `reset`, `settle` and `hit_curve` then say so.
"""

import atexit
import os
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import final

import numpy as np
from msgspec import json
from msgspec.structs import replace
from numpy.typing import NDArray

from tiercel.cache import CacheFacade, Ticket
from tiercel.cache.bounded import Errand
from tiercel.cache.checks import ArgumentChecks, Blocks, looked_up
from tiercel.cache.forks import forget, refuse_in_forked_children
from tiercel.config import ModelConfig
from tiercel.control import HitCurve, Lookup, Priority, check_launchable, check_priority
from tiercel.costs import check_prefill
from tiercel.errors import CacheClosedError, DeadlineError, ThrottledError
from tiercel.hashing import Sequence, root_key
from tiercel.node.calls import AskHitCurve, AskStats, HitCurveAnswer, Message, Reset, Settle, Settled, Stats
from tiercel.node.client.calls import NodeGoneError
from tiercel.node.client.choosing import BoardChoice
from tiercel.node.client.joining import NodeFacts
from tiercel.node.client.keeping import Keeper
from tiercel.node.client.launching import Launcher, Stored
from tiercel.node.client.link import CALL_S
from tiercel.node.client.pins import RemotePins
from tiercel.node.client.sequences import SequenceTable
from tiercel.node.codec import Answer, shortened
from tiercel.node.events import Declined, NoteText, Observe, Recompute
from tiercel.node.protocol import SEQUENCE_BLOCKS_MAX, Kind
from tiercel.plan import Segment, cut_segments
from tiercel.telemetry.logs import bind_request_id
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tiers.base import TierName
_END_BLOCKS = 2**32 - 1
"""A lookup's limit that is none."""

_RESET_S = 35.0
_NAMESPACES_KEPT = 4096


@final
class NodeClient(CacheFacade):
    """The cache of a node. Use as a context manager, sync or async, or call `close`. Thread-safe; see the module's docstring.

    After the node was gone, `shared_memory` and `devices` are others: what was built on them before (`RankGroup`) is to be built anew.
    """

    def __init__(self, keeper: Keeper, notes: Notes, counts: Counter[str]) -> None:
        """Use `connect`."""
        facts = keeper.facts
        self.geometry = facts.geometry
        self._keeper = keeper
        self._notes = notes
        self._counts = counts
        self._fingerprint = facts.fingerprint
        self._checks = ArgumentChecks(facts.geometry, facts.fingerprint, facts.config.transfer_timeout_s)
        self._epochs = Epochs()
        self._sequences = SequenceTable(self._forget)
        self._launcher = Launcher(keeper.tickets, self._missed)
        self._roots = lru_cache(maxsize=_NAMESPACES_KEPT)(root_key)
        self._known_roots: dict[str, bytes] = {}
        self._refusal: str | None = None
        self._slow = threading.Lock()
        self._process = os.getpid()
        self._closing = Errand(self._release, name="tiercel-close")
        self._take_link(keeper.link, keeper.devices)
        atexit.register(self.close)
        refuse_in_forked_children(self)
        try:
            keeper.start(self._take_new_link)
            self._snapshot = self._ask_stats(keeper.link)
        except NodeGoneError as error:
            self.close()
            raise DeviceError(f"the node has ended: {error}") from error
        except BaseException:
            self.close()
            raise
