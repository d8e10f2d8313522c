"""Restoring blocks of which nothing is certain."""

import numpy as np

from tests.helpers.index_samples import NO_ROOTS, ROOT, chain, match_and_release, sequence_of, store
from tiercel.index import Index


def test_blocks_are_restored_in_any_order_and_the_last_used_is_evicted_last() -> None:
    index = Index([16])
    parents, keys = (np.vstack(pair) for pair in zip(chain(1, 2, 3), chain(4, 5), strict=True))
    shuffled = np.array([2, 0, 1, 4, 3])
    slots = np.array([9, 8, 7, 6, 5], np.uint32)
    assert index.restore_blocks(0, parents[shuffled], keys[shuffled], slots, NO_ROOTS).all()
    index.check()
    assert index.match(sequence_of(1, 2, 3), touch=False).slots().tolist() == [8, 7, 9]
    assert index.evict(0, 3).tolist() == [9, 7, 8]
    assert match_and_release(index, sequence_of(4, 5)) == 2
    taken = store(index, sequence_of(*range(100, 114)))
    assert len(set(taken.slots.tolist()) | {5, 6}) == 16


def test_a_hostile_restore_takes_only_what_hangs_together_with_a_root() -> None:
    index = Index([8])
    parents, keys = chain(1, 2, 3, 4, 5, 6)
    cyclic = parents.copy()
    cyclic[3] = keys[5]
    slots = np.array([0, 1, 2, 3, 4, 5], np.uint32)
    assert index.restore_blocks(0, cyclic, keys, slots, NO_ROOTS).tolist() == [True] * 3 + [False] * 3
    index.check()
    assert index.stats(0).num_free == 5
    assert not index.restore_blocks(0, parents, keys, slots + 10, NO_ROOTS).any()
    other_root = np.zeros((1, 16), np.uint8)
    assert not Index([8]).restore_blocks(0, parents, keys, slots, other_root).any()
    self_parent = keys[:1]
    assert not Index([8]).restore_blocks(0, self_parent, self_parent, slots[:1], NO_ROOTS).any()


def test_of_two_restored_blocks_with_one_name_or_one_slot_the_later_counts() -> None:
    index = Index([8])
    parents, keys = chain(1, 2, 3)
    again = np.array([0, 1, 2, 1])
    taken = index.restore_blocks(0, parents[again], keys[again], np.array([0, 1, 2, 3], np.uint32), NO_ROOTS)
    assert taken.tolist() == [True, False, True, True]
    assert index.match(sequence_of(1, 2, 3)).slots().tolist() == [0, 3, 2]
    index = Index([8])
    taken = index.restore_blocks(0, parents, keys, np.array([0, 5, 5], np.uint32), NO_ROOTS)
    assert taken.tolist() == [True, False, False]
    index.check()


def test_blocks_restored_into_a_used_index_join_what_is_there() -> None:
    index = Index([8, 8])
    store(index, sequence_of(1, 2, 3), tier=0)
    store(index, sequence_of(1, 2), tier=1)
    parents, keys = (np.vstack(pair) for pair in zip(chain(1, 2, 3, 4), chain(1, 2, 9)[:2], strict=True))
    keep = np.array([0, 1, 2, 3, 6])
    taken = index.restore_blocks(1, parents[keep], keys[keep], np.array([7, 6, 5, 4, 3], np.uint32), NO_ROOTS)
    index.check()
    assert taken.tolist() == [False, False, True, True, True]
    assert index.match(sequence_of(1, 2, 3, 4)).segments == ((0, 0, 3), (1, 3, 1))
    assert index.match(sequence_of(1, 2, 9)).slots().tolist()[2] == 3


def test_a_comb_of_restored_branches_takes_linear_time() -> None:
    """A path with a branch at every block: touching each branch's whole path would take hours."""
    depth = 100_000
    spine = sequence_of(*range(depth)).keys()
    teeth = spine.copy()
    teeth[:, :8] ^= 255
    above = np.vstack([np.frombuffer(ROOT, np.uint8)[None], spine[:-1]])
    index = Index([2 * depth])
    slots = np.arange(2 * depth, dtype=np.uint32)
    assert index.restore_blocks(0, np.vstack([above, above]), np.vstack([spine, teeth]), slots, NO_ROOTS).all()
    index.check()
