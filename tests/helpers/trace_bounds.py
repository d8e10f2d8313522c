"""The most that any policy can hit, as plainly as it can be written: slow, and what the native pass is held to."""

import heapq
import itertools
from collections.abc import Sequence

from tests.helpers.trace_requests import Request


def plain_belady_hits(requests: Sequence[Request], capacity: int) -> list[int]:
    """Blocks hit of each request by Belady's MIN with bypass, block by block."""
    never = len(requests)
    next_uses: list[list[int]] = []
    coming: dict[int, int] = {}
    for number in range(never - 1, -1, -1):
        path = requests[number].tolist()
        next_uses.append([coming.get(block, never) for block in path])
        coming.update(dict.fromkeys(path, number))
    next_uses.reverse()

    cached: dict[int, int] = {}  # block -> request of its next use
    farthest: list[tuple[int, int, int]] = []  # (-next use, -depth, block), some of them outdated
    hits = []
    for request, uses in zip(requests, next_uses, strict=True):
        path = request.tolist()
        hits.append(next((depth for depth, block in enumerate(path) if block not in cached), len(path)))
        for depth, (block, next_use) in enumerate(zip(path, uses, strict=True)):
            cached.pop(block, None)
            if next_use < never:
                cached[block] = next_use
                heapq.heappush(farthest, (-next_use, -depth, block))
        while len(cached) > capacity:
            next_use, _, block = heapq.heappop(farthest)
            if cached.get(block) == -next_use:
                del cached[block]
    return hits


def best_hits(requests: Sequence[Request], capacity: int) -> int:
    """The most hits of all ways to choose what to keep after each request. For a handful of short requests."""
    reached: dict[frozenset[int], int] = {frozenset(): 0}
    for request in requests:
        path = request.tolist()
        following: dict[frozenset[int], int] = {}
        for cached, num_hits in reached.items():
            now = num_hits + next((depth for depth, block in enumerate(path) if block not in cached), len(path))
            choices = sorted(cached | set(path))
            for kept in itertools.combinations(choices, min(capacity, len(choices))):
                following[frozenset(kept)] = max(following.get(frozenset(kept), 0), now)
        reached = following
    return max(reached.values())
