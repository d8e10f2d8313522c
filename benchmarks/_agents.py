"""Traces like those of coding agents, of any size: long sessions whose prompt grows turn by turn, many of them open at once."""

import numpy as np

from tiercel.tune.traces import NO_REQUEST, Trace

TOKENS_PER_BLOCK = 512


def agent_trace(
    *, num_requests: int, num_open: int, turns_mean: float, blocks_first: float, blocks_a_turn: float, seed: int = 1
) -> Trace:
    """A trace in which each request is the next turn of one of the open sessions, and one that ends makes room for a new one.

    Args:
        num_open: sessions open at once.
        turns_mean: turns of a session; geometric.
        blocks_first, blocks_a_turn: mean blocks of the first prompt, and that each turn adds to it; Poisson.
    """
    rng = np.random.default_rng(seed)
    slots = rng.integers(num_open, size=num_requests)
    ends = rng.random(num_requests) < 1 / turns_mean
    first = rng.poisson(blocks_first, num_requests) + 1
    more = rng.poisson(blocks_a_turn, num_requests) + 1
    leaves = np.full(num_requests, -1, np.int32)
    sessions = np.zeros(num_requests, np.int32)
    depths = np.zeros(num_requests, np.int64)
    deepest, length = [-1] * num_open, [0] * num_open
    of_slot = list(range(num_open))
    num_sessions = num_open
    starts, above = [], []
    num_blocks = 0
    for request, slot in enumerate(slots.tolist()):
        count = int(more[request] if length[slot] else first[request])
        starts.append(num_blocks)
        above.append(deepest[slot])
        num_blocks += count
        deepest[slot], length[slot] = num_blocks - 1, length[slot] + count
        leaves[request], depths[request], sessions[request] = deepest[slot], length[slot], of_slot[slot]
        if ends[request]:
            deepest[slot], length[slot], of_slot[slot] = -1, 0, num_sessions
            num_sessions += 1
    parents = np.arange(-1, num_blocks - 1, dtype=np.int32)
    parents[starts] = above
    return Trace(
        name=f"agents, {num_open} sessions open",
        tokens_per_block=TOKENS_PER_BLOCK,
        parents=parents,
        leaves=leaves,
        arrivals_s=np.cumsum(rng.exponential(2.0, num_requests)),
        input_tokens=depths * TOKENS_PER_BLOCK,
        output_tokens=np.zeros(num_requests, np.int64),
        sessions=sessions,
        after=np.full(num_requests, NO_REQUEST, np.int32),
        delays_s=np.zeros(num_requests, np.float64),
    )
