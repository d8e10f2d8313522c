"""Replay a trace through the native index: every request is looked up, and what it missed is stored."""

from collections.abc import Iterable
from itertools import repeat

from tiercel.hashing import Sequence
from tiercel.index import Index


def replay(index: Index, sequences: Iterable[Sequence], arrivals_s: Iterable[float] | None = None) -> int:
    """Returns how many blocks were hit: of each request the leading ones that the index held when it came."""
    num_hits = 0
    for sequence, now_s in zip(sequences, repeat(0.0) if arrivals_s is None else arrivals_s, strict=False):
        match = index.match(sequence, now_s=now_s)
        num_hits += match.num_blocks
        match.release()
        if match.num_blocks < sequence.num_blocks:
            index.commit(index.reserve(sequence, 0, owner=1, now_s=now_s))
    return num_hits
