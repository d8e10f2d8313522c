"""What engines ask of a cache: modelled links under the real control half (`operations`), or the real thing (`tune.replay`)."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiercel.control import Lookup
from tiercel.hashing import Sequence
from tiercel.tiers.base import TierName

OnLoaded = Callable[[int], None]
"""Told how many leading blocks of a load have arrived when its ticket is resolved."""


class Timer(Protocol):
    """A clock with events; `clock.Clock` is the virtual one."""

    @property
    def now_s(self) -> float:
        """Time of the event that runs."""
        ...

    def at(self, time_s: float, act: Callable[[Any], None], argument: Any = None) -> None:
        """Call `act(argument)` at a time that is not past."""

    def run(self) -> None:
        """Run events, and those that they ask for, until none is left."""


class ServedCache(Protocol):
    """A cache as engines see it. Not thread-safe; nothing waits."""

    @property
    def clock(self) -> Timer: ...

    @property
    def tokens_per_block(self) -> int: ...

    @property
    def tiers(self) -> tuple[TierName, ...]: ...

    def sequence(self, tokens: NDArray[np.int32]) -> Sequence:
        """As `Cache.sequence`."""
        ...

    def lookup(self, sequence: Sequence, *, limit_tokens: int, engine_tokens: int) -> Lookup:
        """As `Cache.lookup`."""
        ...

    def load(self, lookup: Lookup, on_loaded: OnLoaded) -> bool:
        """Launch a load. False, and the lookup is released, if a queue is full."""
        ...

    def expect_store(self, sequence: Sequence, blocks: range) -> None:
        """Be told that the engine begins to compute these blocks of a prompt, and stores them when it has."""

    def store(self, sequence: Sequence, blocks: range) -> None:
        """Launch a store of blocks of a sequence, as far as queues have room."""

    def observe_prefill(self, cached_tokens: int, computed_tokens: int, seconds: float) -> None:
        """As `Cache.observe_prefill`."""
