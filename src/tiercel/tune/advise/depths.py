"""How deep each block of each request lies in the order of use: all that LRU's hits at any capacity follow from.

A request uses its blocks leaf first, so the blocks that a request was the last to use are the tail of its path, and lie in the
order of use one behind the other (Mattson's stack distances on a tree of prefixes). So an entry a request is enough: how many
blocks it was the last to use. Depths hold when the request arrives, before any of its blocks is used.
"""

import numpy as np
from numpy.typing import NDArray

from tiercel.tune.traces import Trace

NEVER = 0
"""Depth of a block that was not used before."""


def lru_depths(trace: Trace, *, with_output: bool = True) -> NDArray[np.int64]:
    """Return how many different blocks were used since each block's last use, itself included.

    Args:
        with_output: whether the tokens that a request generates are kept behind its prompt, too.

    Time: O(log requests) for each stretch of a path that one request was the last to use.

    Returns:
        int64[num_references]: in the order of requests, each path root first; NEVER for a block's first use.
    """
    last_use = np.full(trace.num_blocks, -1, np.int64)
    newest = _Counts(trace.num_requests)
    outputs = trace.output_tokens // trace.tokens_per_block if with_output else np.zeros(trace.num_requests, np.int64)
    depths = []
    for request, path in enumerate(trace.paths()):
        if not len(path):
            continue
        users = last_use[path]
        found = np.zeros(len(path), np.int64)
        starts = np.concatenate([[0], np.flatnonzero(users[1:] != users[:-1]) + 1]).tolist()
        for start, stop in zip(starts, [*starts[1:], len(path)], strict=True):
            user = int(users[start])
            if user >= 0:
                found[start:stop] = newest.total - newest.up_to(user) + np.arange(1, stop - start + 1)
        for start, stop in zip(starts, [*starts[1:], len(path)], strict=True):
            if users[start] >= 0:
                newest.add(int(users[start]), start - stop)
        newest.add(request, len(path) + int(outputs[request]))
        last_use[path] = request
        depths.append(found)
    return np.concatenate(depths) if depths else np.zeros(0, np.int64)


class _Counts:
    """Counts by number, and their sums up to a number in O(log size) (Fenwick, 1994)."""

    def __init__(self, size: int) -> None:
        self._sums = [0] * (size + 1)
        self.total = 0

    def add(self, number: int, count: int) -> None:
        self.total += count
        number += 1
        while number < len(self._sums):
            self._sums[number] += count
            number += number & -number

    def up_to(self, number: int) -> int:
        number += 1
        total = 0
        while number:
            total += self._sums[number]
            number &= number - 1
        return total
