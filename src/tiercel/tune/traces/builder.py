"""Traces put together request by request, whatever names their source gives to blocks."""

from array import array
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel._native import TraceTree
from tiercel.tune.traces.trace import NO_REQUEST, NO_SESSION, Trace, printable

BlockNames = Sequence[int] | NDArray[np.integer]


class TraceBuilder:
    """Collects requests. Times may come in any order; `build` sorts them.

    Memory: some 40 bytes a different block and 100 a request, and what the source calls its sessions and scopes.
    """

    def __init__(self, name: str, *, tokens_per_block: int) -> None:
        if tokens_per_block < 1:
            raise ValueError(f"tokens_per_block = {tokens_per_block}: must be 1 or more")
        self._name = printable(name)
        self.tokens_per_block = tokens_per_block
        self._tree = TraceTree()
        self._scopes: dict[Hashable, int] = {}
        self._sessions: dict[Hashable, int] = {}
        self._leaves, self._session_of, self._after = array("i"), array("i"), array("i")
        self._arrivals_s, self._delays_s = array("d"), array("d")
        self._input_tokens, self._output_tokens = array("q"), array("q")

    @property
    def num_requests(self) -> int:
        return len(self._leaves)

    @property
    def num_blocks(self) -> int:
        """Different blocks so far."""
        return self._tree.num_blocks

    def add(
        self,
        blocks: BlockNames,
        *,
        arrival_s: float,
        input_tokens: int,
        output_tokens: int = 0,
        session: Hashable = None,
        after: int = NO_REQUEST,
        delay_s: float = 0.0,
        scope: Hashable = None,
    ) -> int:
        """Add a request.

        Args:
            blocks: the source's names of the prompt's blocks, integers of 64 bits, the first one first.
            session: the source's name of the conversation; None for none.
            after: number of the request whose end it waits for; it does not arrive before that one does.
            scope: names of blocks mean the same only within one scope.

        Returns:
            The request's number, for `after`.

        Raises:
            OverflowError: a name has more than 64 bits; nothing is added.
        """
        names = blocks if type(blocks) is list else as_names(blocks)
        leaf = self._tree.add(names, self._scopes.setdefault(scope, len(self._scopes)))
        if after != NO_REQUEST:
            arrival_s = max(arrival_s, self._arrivals_s[after])
        self._leaves.append(leaf)
        self._arrivals_s.append(arrival_s)
        self._input_tokens.append(input_tokens)
        self._output_tokens.append(output_tokens)
        known = NO_SESSION if session is None else self._sessions.setdefault(session, len(self._sessions))
        self._session_of.append(known)
        self._after.append(after)
        self._delays_s.append(delay_s)
        return len(self._leaves) - 1

    def follow(self, request: int, after: int, delay_s: float) -> None:
        """Let a request that was added wait for another one's end, which the source told later."""
        self._after[request], self._delays_s[request] = after, delay_s

    def out_of_order(self) -> list[str]:
        """Say how many requests came before one that was added earlier, if any did."""
        arrivals = np.array(self._arrivals_s, np.float64)
        late = int(np.count_nonzero(arrivals < np.maximum.accumulate(arrivals))) if len(arrivals) else 0
        return [f"{late} requests stood behind later ones and were sorted by time"] if late else []

    def build(self, *, notes: Sequence[str] = ()) -> Trace:
        """Return the trace, with its first arrival at 0."""
        arrivals = np.array(self._arrivals_s, np.float64)
        order = np.argsort(arrivals, kind="stable")
        place = np.empty(len(order) + 1, np.int32)
        place[order] = np.arange(len(order))
        place[NO_REQUEST] = NO_REQUEST
        return Trace(
            name=self._name,
            tokens_per_block=self.tokens_per_block,
            parents=self._tree.parents(),
            leaves=np.array(self._leaves, np.int32)[order],
            arrivals_s=arrivals[order] - (arrivals.min() if len(arrivals) else 0.0),
            input_tokens=np.array(self._input_tokens, np.int64)[order],
            output_tokens=np.array(self._output_tokens, np.int64)[order],
            sessions=np.array(self._session_of, np.int32)[order],
            after=place[np.array(self._after, np.int32)[order]],
            delays_s=np.array(self._delays_s, np.float64)[order],
            notes=tuple(notes),
        )


def as_names(blocks: BlockNames) -> NDArray[np.uint64]:
    """Return integers as 64 bits without a sign; a negative one as its two's complement."""
    if isinstance(blocks, np.ndarray):
        return np.ascontiguousarray(blocks).astype(np.uint64, copy=False)
    try:
        return np.array(blocks, np.int64).view(np.uint64)
    except OverflowError:
        return np.array(blocks, np.uint64)
