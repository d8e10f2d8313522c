"""Replay a trace through the native index: every request is looked up, and what it missed is stored."""

from collections.abc import Iterable

from tiercel.hashing import Sequence
from tiercel.index import Index


def replay(index: Index, sequences: Iterable[Sequence]) -> int:
    """Returns how many blocks were hit: of each request the leading ones that the index held when it came."""
    num_hits = 0
    for sequence in sequences:
        match = index.match(sequence)
        num_hits += match.num_blocks
        match.release()
        if match.num_blocks < sequence.num_blocks:
            index.commit(index.reserve(sequence, 0, owner=1))
    return num_hits
