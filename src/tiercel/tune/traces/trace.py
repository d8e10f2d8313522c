"""A trace of requests: who asked when, for how many tokens, and which of their leading blocks were the same.

The blocks of all requests are one tree: a block is one with another exactly if everything before it is the same too. So a
request is the number of its deepest block, and a trace of ten million references takes the memory of its different blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

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
    def span_s(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrivals_s[-1]) if len(self.arrivals_s) else 0.0

    @cached_property
    def depths(self) -> NDArray[np.int32]:
        """int32[num_blocks]: blocks before each block in its sequence."""
        starts = self._run_starts
        depths = np.arange(self.num_blocks, dtype=np.int32) - starts
        # A run hangs below a block of an earlier run, whose own depth is known by then.
        for start in np.unique(starts).tolist():
            parent = int(self.parents[start])
            if parent != NO_BLOCK:
                stop = int(self._run_stops[start])
                depths[start:stop] += depths[parent] + 1
        return depths

    @property
    def num_references(self) -> int:
        """Blocks of all requests together."""
        held = self.leaves[self.leaves != NO_BLOCK]
        return int(self.depths[held].sum()) + len(held)

    def num_blocks_of(self, request: int) -> int:
        """Blocks that the trace names for a request."""
        leaf = int(self.leaves[request])
        return 0 if leaf == NO_BLOCK else int(self.depths[leaf]) + 1

    def path(self, request: int) -> NDArray[np.int32]:
        """Return the blocks of a request, its first one first."""
        parts: list[NDArray[np.int32]] = []
        block = int(self.leaves[request])
        while block != NO_BLOCK:
            start = int(self._run_starts[block])
            parts.append(np.arange(start, block + 1, dtype=np.int32))
            block = int(self.parents[start])
        return np.concatenate(parts[::-1]) if parts else np.empty(0, np.int32)

    def paths(self) -> Iterator[NDArray[np.int32]]:
        """Yield the blocks of each request, in order of arrival."""
        return map(self.path, range(self.num_requests))

    def tokens(self, request: int) -> NDArray[np.int32]:
        """Return tokens that stand for a request's: int32[input_tokens].

        Each token is the number of the block it lies in, so two requests share exactly the tokens of the blocks that they
        share, at any block size. Those behind the last block that the trace names are this request's own.
        """
        count = int(self.input_tokens[request])
        named = np.repeat(self.path(request), self.tokens_per_block)[:count]
        own = np.full(count - len(named), self.num_blocks + request, np.int32)
        return np.concatenate([named, own])

    def without_partial_blocks(self) -> "Trace":
        """Return the trace with the full blocks of each prompt only: those that a cache can hold."""
        full = self.input_tokens // self.tokens_per_block
        leaves = self.leaves.copy()
        for request in np.flatnonzero(self._named() > full).tolist():
            count = int(full[request])
            leaves[request] = self.path(request)[count - 1] if count else NO_BLOCK
        return replace(self, leaves=leaves)

    def _named(self) -> NDArray[np.int64]:
        named = np.zeros(self.num_requests, np.int64)
        held = self.leaves != NO_BLOCK
        named[held] = self.depths[self.leaves[held]] + 1
        return named

    @cached_property
    def _run_starts(self) -> NDArray[np.int32]:
        """Of each block, the first one of the consecutively numbered chain that it ends or continues."""
        numbers = np.arange(self.num_blocks, dtype=np.int32)
        return np.maximum.accumulate(np.where(self.parents == numbers - 1, 0, numbers)) if len(numbers) else numbers

    @cached_property
    def _run_stops(self) -> dict[int, int]:
        starts = np.unique(self._run_starts)
        return dict(zip(starts.tolist(), [*starts[1:].tolist(), self.num_blocks], strict=True))
