"""A trace of requests: who asked when, for how many tokens, and which of their leading blocks were the same.

The blocks of all requests are one tree: a block is one with another exactly if everything before it is the same too. So a
request is the number of its deepest block, and a trace of ten million references takes the memory of its different blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tiercel._native import trace_depths, trace_first_uses, trace_paths

NO_BLOCK = -1
"""Parent of a sequence's first block; leaf of a request without a block."""
NO_REQUEST = -1
"""`Trace.after` of a request that waits for no other."""
NO_SESSION = -1


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Requests in order of arrival.

    Attributes:
        name: what the trace is called in tables.
        tokens_per_block: tokens of one block of the trace.
        parents: int32[num_blocks], each block's parent; parents come before their children.
        leaves: int32[num_requests], the deepest block of each request, the partly filled last one included where the source
            names it.
        arrivals_s: float64[num_requests], seconds since the first arrival, ascending.
        input_tokens: int64[num_requests], length of the prompt.
        output_tokens: int64[num_requests], tokens generated.
        sessions: int32[num_requests], conversation or agent that a request belongs to, or NO_SESSION.
        after: int32[num_requests], the earlier request whose end this one waits for, or NO_REQUEST: then it arrives when
            `arrivals_s` says.
        delays_s: float64[num_requests], seconds between the end of the request it waits for and its own arrival.
        notes: what the source did not say and was assumed, a sentence each.
    """

    name: str
    tokens_per_block: int
    parents: NDArray[np.int32]
    leaves: NDArray[np.int32]
    arrivals_s: NDArray[np.float64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    sessions: NDArray[np.int32]
    after: NDArray[np.int32]
    delays_s: NDArray[np.float64]
    notes: tuple[str, ...] = field(default=())

    @property
    def num_requests(self) -> int:
        return len(self.leaves)

    @property
    def num_blocks(self) -> int:
        """Different blocks."""
        return len(self.parents)

    @property
    def num_sessions(self) -> int:
        """Different sessions."""
        return len(np.unique(self.sessions[self.sessions != NO_SESSION]))

    @property
    def num_waiting(self) -> int:
        """Requests that wait for another one's end."""
        return int(np.count_nonzero(self.after != NO_REQUEST))

    @property
    def span_s(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrivals_s[-1]) if len(self.arrivals_s) else 0.0

    @cached_property
    def depths(self) -> NDArray[np.int32]:
        """int32[num_blocks]: blocks before each block in its sequence."""
        return trace_depths(self.parents)

    @property
    def num_references(self) -> int:
        """Blocks of all requests together."""
        return int(self.num_blocks_named.sum())

    @cached_property
    def num_blocks_named(self) -> NDArray[np.int64]:
        """int64[num_requests]: blocks that the trace names for each request."""
        named = np.zeros(self.num_requests, np.int64)
        held = self.leaves != NO_BLOCK
        named[held] = self.depths[self.leaves[held]].astype(np.int64) + 1
        return named

    @cached_property
    def first_uses(self) -> NDArray[np.int32]:
        """int32[num_blocks]: the first request that has each block; `num_requests` for a block that none has."""
        return trace_first_uses(self.parents, self.leaves)

    @cached_property
    def num_blocks_seen(self) -> NDArray[np.int64]:
        """int64[num_requests]: leading blocks of each request that an earlier one has: what a cache without end hits."""
        new = np.bincount(self.first_uses, minlength=self.num_requests + 1)[: self.num_requests]
        return self.num_blocks_named - new

    def num_blocks_of(self, request: int) -> int:
        """Blocks that the trace names for a request."""
        return int(self.num_blocks_named[request])

    def path(self, request: int) -> NDArray[np.int32]:
        """Return the blocks of a request, its first one first."""
        return trace_paths(self.parents, self.depths, self.leaves[request : request + 1])

    def paths(self) -> Iterator[NDArray[np.int32]]:
        """Yield the blocks of each request, in order of arrival."""
        return map(self.path, range(self.num_requests))

    def tokens(self, request: int) -> NDArray[np.int32]:
        """Return tokens that stand for a request's: int32[input_tokens].

        Each token is the number of the block it lies in, so two requests share exactly the tokens of the blocks that they
        share, at any block size. Those behind the last block that the trace names are this request's own.
        """
        count = int(self.input_tokens[request])
        path, size = self.path(request), self.tokens_per_block
        tokens = np.empty(max(count, size * len(path)), np.int32)
        tokens[: size * len(path)].reshape(-1, size)[:] = path[:, np.newaxis]
        tokens[size * len(path) :] = self.num_blocks + request
        return tokens[:count]

    def without_partial_blocks(self) -> "Trace":
        """Return the trace with the full blocks of each prompt only: those that a cache can hold."""
        excess = self.num_blocks_named - self.input_tokens // self.tokens_per_block
        leaves = self.leaves.copy()
        while len(cut := np.flatnonzero(excess > 0)):
            leaves[cut] = self.parents[leaves[cut]]
            excess[cut] -= 1
        return replace(self, leaves=leaves)


def printable(name: str) -> str:
    """Return a name that every table, report and file can hold: files may have any bytes in theirs."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
