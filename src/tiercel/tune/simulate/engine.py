"""The engines that ask: prompts computed one after the other, tokens generated beside them, a prefix cache in GPU memory.

A replica's own cache is a real index of one tier. A request holds its blocks from when it is looked up until it has ended, as
an engine's scheduler does.
"""

import heapq
from dataclasses import dataclass, field

from tiercel.hashing import Sequence
from tiercel.index import Index, Match
from tiercel.tiers.base import TierName
from tiercel.tune.simulate.setup import EngineModel


class PrefixCache:
    """The prefix cache of one engine: least recently used blocks leave first."""

    def __init__(self, num_blocks: int, tokens_per_block: int) -> None:
        """num_blocks: at least one."""
        self.index = Index([num_blocks], tokens_per_block=tokens_per_block)

    def match(self, sequence: Sequence, limit_blocks: int, now_s: float) -> Match:
        """Hold a sequence's leading blocks."""
        return self.index.match(sequence, limit_blocks=limit_blocks, now_s=now_s)

    def insert(self, sequence: Sequence, now_s: float, limit_blocks: int | None = None) -> Match:
        """Take a sequence's full blocks in, the first limit_blocks or all, as far as there is room, and hold them."""
        reservation = self.index.reserve(sequence, 0, owner=1, limit_blocks=limit_blocks, now_s=now_s)
        self.index.commit(reservation)
        reservation.release()
        return self.index.match(sequence, limit_blocks=limit_blocks, now_s=now_s)


@dataclass(slots=True, eq=False)
class Request:
    """A request between its arrival and its end.

    Attributes:
        number: of the trace. order: of arrival.
        cacheable_blocks: leading blocks that may come from a cache: an engine computes at least the last token.
        engine_blocks: leading blocks that the engine had at the lookup.
        loaded: blocks that were loaded, by the tier they came from.
        stored_blocks: leading blocks that need no store, as they were loaded.
        expected_ns: what its prefill is taken to cost, for those that choose a replica.
        held: its hold on blocks in GPU memory.
    """

    number: int
    order: int
    sequence: Sequence
    replica: "Replica"
    num_tokens: int
    cacheable_blocks: int
    engine_blocks: int = 0
    loaded: dict[TierName, int] = field(default_factory=dict)
    stored_blocks: int = 0
    expected_ns: int = 0
    held: Match | None = None

    def hold(self, match: Match | None) -> None:
        """Hold other blocks than before."""
        if self.held is not None:
            self.held.release()
        self.held = match


class Replica:
    """One engine: what it computes, and who waits for it."""

    def __init__(self, model: EngineModel, tokens_per_block: int) -> None:
        self.cache = PrefixCache(model.gpu_blocks, tokens_per_block) if model.gpu_blocks else None
        self.is_computing = False
        self._busy_until_s = 0.0
        self._expected_ns = 0  # whole numbers, so that what was added and taken away leaves nothing behind
        self._ready: list[tuple[int, int, Request]] = []

    def free_at_s(self, now_s: float) -> float:
        """When it would be done with what it was given."""
        return max(now_s, self._busy_until_s) + self._expected_ns * 1e-9

    def expect(self, request: Request) -> None:
        """Count on a request that was given to this replica."""
        self._expected_ns += request.expected_ns

    def add(self, request: Request) -> None:
        """Let a request that has what it loads wait for the engine."""
        heapq.heappush(self._ready, (request.order, request.number, request))

    def next(self) -> Request | None:
        """The request to compute now: of those that are ready, the one that arrived first."""
        if self.is_computing or not self._ready:
            return None
        return heapq.heappop(self._ready)[2]

    def start(self, request: Request, until_s: float) -> None:
        """Compute a request."""
        self.is_computing = True
        self._busy_until_s = until_s
        self.forget(request)

    def forget(self, request: Request) -> None:
        """Count on a request no longer."""
        self._expected_ns -= request.expected_ns
