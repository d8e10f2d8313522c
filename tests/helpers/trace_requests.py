"""Requests over random prefix trees, and LRU over them as plainly as it can be written."""

import numpy as np
from numpy.typing import NDArray

from tiercel.hashing import Sequence

Request = NDArray[np.int32]


def random_requests(rng: np.random.Generator, num_requests: int, *, num_prompts: int = 3) -> list[Request]:
    """Conversations behind a few shared prompts that grow turn by turn; every id has one parent."""
    num_ids = 0

    def fresh(num_blocks: int) -> list[int]:
        nonlocal num_ids
        num_ids += num_blocks
        return list(range(num_ids - num_blocks, num_ids))

    prompts = [fresh(int(rng.integers(1, 5))) for _ in range(num_prompts)]
    conversations: list[list[int]] = []
    requests = []
    for _ in range(num_requests):
        if not conversations or rng.random() < 0.4:
            conversations.append(list(prompts[int(rng.integers(num_prompts))]))
        chosen = conversations[-1 - min(int(rng.geometric(0.15)) - 1, len(conversations) - 1)]
        chosen.extend(fresh(int(rng.integers(1, 6))))
        requests.append(np.array(chosen, np.int32))
    return requests


def sequences_of(requests: list[Request]) -> list[Sequence]:
    return [Sequence(bytes(16), 1, request) for request in requests]


def plain_lru_hits(requests: list[Request], capacity: int) -> int:
    """Blocks hit in a cache of whole blocks, used from leaf to root, oldest out first."""
    ages: dict[int, int] = {}
    clock = num_hits = 0
    for request in requests:
        path = request.tolist()
        num_hits += next((depth for depth, block in enumerate(path) if block not in ages), len(path))
        for block in reversed(path):
            clock += 1
            ages[block] = clock
        for block in sorted(ages, key=ages.__getitem__)[: max(0, len(ages) - capacity)]:
            del ages[block]
    return num_hits
