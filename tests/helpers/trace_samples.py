"""Traces as tests need them: over random prefix trees, and what two requests share, told in the plainest way."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import msgspec
import numpy as np

from tests.helpers.trace_requests import random_requests
from tiercel.tune.traces import Trace, TraceBuilder


def random_trace(seed: int, num_requests: int = 30, *, tokens_per_block: int = 16) -> Trace:
    """A trace with sessions, some waiting requests, and partly filled last blocks, most of which are named."""
    rng = np.random.default_rng(seed)
    builder = TraceBuilder("random", tokens_per_block=tokens_per_block)
    now_s = 0.0
    last_of: dict[int, int] = {}
    for path in random_requests(rng, num_requests):
        now_s += round(float(rng.exponential(2.0)), 3)
        missing = int(rng.integers(0, tokens_per_block)) if rng.random() < 0.7 else 0
        session = int(path[0]) if rng.random() < 0.6 else None
        waits = session is not None and session in last_of and rng.random() < 0.5
        number = builder.add(
            path,
            arrival_s=now_s,
            input_tokens=len(path) * tokens_per_block - missing,
            output_tokens=int(rng.integers(0, 300)),
            session=session,
            after=last_of[session] if waits and session is not None else -1,
            delay_s=round(float(rng.exponential(1.0)), 3) if waits else 0.0,
        )
        if session is not None:
            last_of[session] = number
    return builder.build()


def shared_tokens(trace: Trace) -> list[list[int]]:
    """Of each two requests, the leading tokens that are the same."""
    tokens = [trace.tokens(request).tolist() for request in range(trace.num_requests)]
    return [[shared_length(one, other) for other in tokens] for one in tokens]


def shared_blocks(trace: Trace) -> list[list[int]]:
    """Of each two requests, the leading blocks that are the same."""
    paths = [path.tolist() for path in trace.paths()]
    return [[shared_length(one, other) for other in paths] for one in paths]


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Leading items that are the same."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def write_rows(path: Path, *rows: object) -> Path:
    """Write a JSON value a line."""
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path
