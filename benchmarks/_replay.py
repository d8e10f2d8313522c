"""Replay a trace through the native index: every request is looked up, and what it missed is stored."""

from collections.abc import Iterable
from itertools import repeat

from _traces import TOKENS_PER_BLOCK

from tiercel.hashing import Sequence
from tiercel.index import Index


def trace_index(capacities: list[int], policies: list[str] | None = None) -> Index:
    """An index for blocks of a trace, which knows how many tokens they stand for."""
    return Index(capacities, policies=policies, tokens_per_block=TOKENS_PER_BLOCK)


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
