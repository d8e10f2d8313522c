"""Short sequences and the usual calls, for the tests of the index."""

import numpy as np
from numpy.typing import NDArray

from tiercel._native import Sequence
from tiercel.index import Index, Reservation

ROOT = bytes(range(16))
NO_ROOTS = np.empty((0, 16), np.uint8)


def sequence_of(*blocks: int, root: bytes = ROOT) -> Sequence:
    """A sequence of one token a block."""
    return Sequence(root, 1, np.array(blocks, np.int32))


def store(index: Index, sequence: Sequence, tier: int = 0) -> Reservation:
    reservation = index.reserve(sequence, tier, owner=0)
    index.commit(reservation)
    reservation.release()
    index.check()
    return reservation


def match_and_release(index: Index, sequence: Sequence) -> int:
    with_pins = index.match(sequence, touch=False)
    num_blocks = with_pins.num_blocks
    with_pins.release()
    return num_blocks


def flags(num_blocks: int, *failed: int) -> NDArray[np.bool_]:
    array = np.zeros(num_blocks, np.bool_)
    array[list(failed)] = True
    return array


def store_quietly(index: Index, sequence: Sequence) -> list[int]:
    reservation = index.reserve(sequence, 0, owner=0)
    index.commit(reservation)
    return [int(slot) for slot in reservation.slots]


def chain(*blocks: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    sequence = sequence_of(*blocks)
    keys = sequence.keys()
    return np.vstack([np.frombuffer(ROOT, np.uint8)[None], keys[:-1]]), keys
