"""Traces put together request by request, whatever names their source gives to blocks."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel.tune.traces.trace import NO_BLOCK, NO_REQUEST, NO_SESSION, Trace

BlockNames = Sequence[int] | NDArray[np.integer]


class TraceBuilder:
    """Collects requests. Times may come in any order; `build` sorts them.

    Memory: some 200 bytes a different block and 100 a request.
    """

    def __init__(self, name: str, *, tokens_per_block: int) -> None:
        self._name = name
        self._tokens_per_block = tokens_per_block
        self._children: dict[tuple[int, Hashable, int], int] = {}
        self._parents: list[int] = []
        self._last_of: dict[Hashable, tuple[NDArray[np.int64], NDArray[np.int32]]] = {}
        self._sessions: dict[Hashable, int] = {}
        self._rows: list[tuple[int, float, int, int, int, int, float]] = []

    @property
    def num_requests(self) -> int:
        return len(self._rows)

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
            blocks: the source's names of the prompt's blocks, the first one first.
            session: the source's name of the conversation; None for none.
            after: number of the request whose end it waits for.
            scope: names of blocks mean the same only within one scope.

        Returns:
            The request's number, for `after`.
        """
        leaf = self._leaf(np.asarray(blocks, np.int64), scope, scope if session is None else (scope, session))
        number = NO_SESSION if session is None else self._sessions.setdefault(session, len(self._sessions))
        self._rows.append((leaf, arrival_s, input_tokens, output_tokens, number, after, delay_s))
        return len(self._rows) - 1

    def _leaf(self, names: NDArray[np.int64], scope: Hashable, line: Hashable) -> int:
        """The deepest block of a path. What it shares with the last path of the same line is not looked up again."""
        last = self._last_of.get(line)
        shared = 0
        if last is not None:
            length = min(len(names), len(last[0]))
            differing = np.flatnonzero(names[:length] != last[0][:length])
            shared = int(differing[0]) if len(differing) else length
        path = np.empty(len(names), np.int32)
        if shared and last is not None:
            path[:shared] = last[1][:shared]
        block = int(path[shared - 1]) if shared else NO_BLOCK
        for at, name in enumerate(names[shared:].tolist(), shared):
            # The scope tells roots apart; below them the parent does.
            key = (block, scope if block == NO_BLOCK else None, name)
            child = self._children.get(key)
            if child is None:
                child = self._children[key] = len(self._parents)
                self._parents.append(block)
            path[at] = block = child
        self._last_of[line] = (names, path)
        return block

    def build(self, *, notes: Sequence[str] = ()) -> Trace:
        """Return the trace, with its first arrival at 0."""
        columns = list(zip(*self._rows, strict=True)) if self._rows else [()] * 7
        arrivals = np.array(columns[1], np.float64)
        order = np.argsort(arrivals, kind="stable")
        place = np.empty(len(order) + 1, np.int32)
        place[order] = np.arange(len(order))
        place[NO_REQUEST] = NO_REQUEST
        return Trace(
            name=self._name,
            tokens_per_block=self._tokens_per_block,
            parents=np.array(self._parents, np.int32),
            leaves=np.array(columns[0], np.int32)[order],
            arrivals_s=arrivals[order] - (arrivals.min() if len(arrivals) else 0.0),
            input_tokens=np.array(columns[2], np.int64)[order],
            output_tokens=np.array(columns[3], np.int64)[order],
            sessions=np.array(columns[4], np.int32)[order],
            after=place[np.array(columns[5], np.int32)[order]],
            delays_s=np.array(columns[6], np.float64)[order],
            notes=tuple(notes),
        )
