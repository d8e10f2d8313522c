"""Requests over random prefix trees, and LRU over them as plainly as it can be written."""

import numpy as np
from numpy.typing import NDArray

from tiercel.hashing import Sequence
from tiercel.tune.traces import Trace, TraceBuilder

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


def trace_of(requests: list[Request], *, tokens_per_block: int = 4, input_tokens: list[int] | None = None) -> Trace:
    """A trace of requests a second apart, each prompt as long as its blocks unless said otherwise."""
    builder = TraceBuilder("random", tokens_per_block=tokens_per_block)
    for number, request in enumerate(requests):
        length = len(request) * tokens_per_block if input_tokens is None else input_tokens[number]
        builder.add(request, arrival_s=float(number), input_tokens=length)
    return builder.build()


def random_trace(rng: np.random.Generator, num_requests: int, *, tokens_per_block: int = 4) -> Trace:
    """Random requests, the last block of each filled by chance."""
    requests = random_requests(rng, num_requests)
    tokens = [int(len(request) * tokens_per_block - rng.integers(tokens_per_block)) for request in requests]
    return trace_of(requests, tokens_per_block=tokens_per_block, input_tokens=tokens)


def plain_lru_hits_each(requests: list[Request], capacity: int) -> list[int]:
    """Blocks hit of each request in a cache of whole blocks, used from leaf to root, oldest out first."""
    ages: dict[int, int] = {}
    clock = 0
    hits = []
    for request in requests:
        path = request.tolist()
        hits.append(next((depth for depth, block in enumerate(path) if block not in ages), len(path)))
        for block in reversed(path):
            clock += 1
            ages[block] = clock
        for block in sorted(ages, key=ages.__getitem__)[: max(0, len(ages) - capacity)]:
            del ages[block]
    return hits


def plain_lru_hits(requests: list[Request], capacity: int) -> int:
    """Blocks hit of all requests together."""
    return sum(plain_lru_hits_each(requests, capacity))
