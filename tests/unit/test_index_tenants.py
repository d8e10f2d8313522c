"""Tenants of the index: reserves, limits, and whose a root is."""

import numpy as np
import pytest

from tests.helpers.index_samples import NO_ROOTS, ROOT, match_and_release, sequence_of, store
from tiercel.index import Index

OTHER = bytes([7] * 16)


def held(index: Index, tier: int = 0) -> list[int]:
    return [share.num_held for share in index.shares(tier)]


def shared_index(capacity: int = 10, *, reserve: int = 4, limit: int = 10, num_tiers: int = 1) -> Index:
    index = Index([capacity] * num_tiers, tenants=[([reserve] * num_tiers, [limit] * num_tiers)])
    index.assign(OTHER, 1)
    return index


def store_late(index: Index, *blocks: int, root: bytes = ROOT, now_s: float = 0.0) -> int:
    reservation = index.reserve(sequence_of(*blocks, root=root), 0, owner=0, now_s=now_s)
    index.commit(reservation)
    index.check()
    return reservation.num_blocks


def test_a_flood_leaves_what_another_tenant_has_reserved() -> None:
    index = shared_index()
    store(index, sequence_of(1, 2, 3, 4, 5, 6, root=OTHER))
    for number in range(50):
        store_late(index, 100 + number, now_s=number + 1.0)
    assert held(index) == [6, 4], "the oldest leave, but not below the reserve"
    assert match_and_release(index, sequence_of(1, 2, 3, 4, 5, 6, root=OTHER)) == 4
    assert index.evict(0, 10).size == 6
    assert held(index) == [0, 4]
    assert [share.num_evicted for share in index.shares(0)] == [50, 2]


def test_a_tenant_below_its_reserve_takes_from_those_above_theirs_and_not_from_itself() -> None:
    index = shared_index()
    store_late(index, 1, 2, root=OTHER, now_s=1.0)
    store_late(index, *range(10, 18), now_s=2.0)
    assert store_late(index, 3, 4, root=OTHER, now_s=3.0) == 2
    assert held(index) == [6, 4]
    assert match_and_release(index, sequence_of(1, 2, root=OTHER)) == 2


def test_a_tenant_whose_others_hold_only_their_reserves_gives_its_own() -> None:
    index = shared_index(reserve=10)
    store_late(index, *range(10), root=OTHER)
    assert store_late(index, 50, 51) == 0, "everything is reserved for another"
    assert store_late(index, 60, 61, root=OTHER, now_s=1.0) == 2
    assert held(index) == [0, 10]


def test_a_tenant_at_its_limit_evicts_its_own_and_then_finds_no_space() -> None:
    index = shared_index(20, reserve=0, limit=4)
    assert store_late(index, 1, 2, 3, root=OTHER) == 3
    assert store_late(index, 4, 5, 6, root=OTHER, now_s=1.0) == 3
    assert held(index) == [0, 4]
    assert match_and_release(index, sequence_of(1, 2, 3, root=OTHER)) == 1
    long = index.reserve(sequence_of(*range(20, 30), root=OTHER), 0, owner=0)
    assert (long.num_blocks, long.num_short) == (4, 6)
    assert index.reserve(sequence_of(9, root=OTHER), 0, owner=0).num_short == 1, "its own blocks are being written"
    assert index.stats(0).num_free == 16


def test_blocks_change_hands_with_their_root_before_and_after_they_came() -> None:
    index = shared_index()
    store(index, sequence_of(1, 2, 3))
    store(index, sequence_of(1, 2, 9, 9))
    assert held(index) == [5, 0]
    index.assign(ROOT, 1)
    index.check()
    assert held(index) == [0, 5]
    index.assign(ROOT, 0)
    index.check()
    assert held(index) == [5, 0]
    with pytest.raises(ValueError, match="2 tenants, 0 included, not number 2"):
        index.assign(ROOT, 2)
    with pytest.raises(ValueError, match="16 bytes, not 3"):
        index.assign(b"abc", 1)


def test_recovered_blocks_are_their_roots_tenants_and_orphans_nobodys() -> None:
    sequence = sequence_of(1, 2, 3, 4, root=OTHER)
    keys = sequence.keys()
    parents = np.vstack([np.frombuffer(OTHER, np.uint8)[None], keys[:-1]])
    slots = np.arange(4, dtype=np.uint32)
    index = shared_index()
    assert index.restore_blocks(0, parents, keys, slots, NO_ROOTS).all()
    assert held(index) == [0, 4]
    index = shared_index()
    assert index.restore_blocks(0, parents[2:], keys[2:], slots[2:], NO_ROOTS).all(), "its beginning was lost"
    index.check()
    assert held(index) == [2, 0]


def test_a_demotion_takes_only_what_leaves_and_room_that_nobody_has_reserved() -> None:
    index = shared_index(6, reserve=3, num_tiers=2)
    for tier in (0, 1):
        store(index, sequence_of(1, 2, 3, root=OTHER), tier)
    store(index, sequence_of(7, 8), tier=1)
    reservation = index.reserve(sequence_of(4, 5, 6), 0, owner=0, now_s=5.0)
    index.commit(reservation)
    reservation.release()
    made = index.demote(0, 1, owner=1, num_blocks=9, now_s=6.0)
    assert made is not None
    assert made[1].keys().tobytes() == sequence_of(4, 5, 6).keys().tobytes(), "the oldest is reserved and stays"
    index.commit(made[1])
    index.check()
    assert held(index, 1) == [3, 3]


def test_after_a_restart_the_one_furthest_above_its_reserve_gives_first() -> None:
    index = shared_index(20, reserve=2)
    for root, num_blocks in ((OTHER, 4), (ROOT, 8)):
        keys = sequence_of(*range(num_blocks), root=root).keys()
        parents = np.vstack([np.frombuffer(root, np.uint8)[None], keys[:-1]])
        slots = np.arange(num_blocks, dtype=np.uint32) + (0 if root == OTHER else 10)
        index.restore_blocks(0, parents, keys, slots, NO_ROOTS)
    index.evict(0, 4)
    assert held(index) == [4, 4]


@pytest.mark.parametrize(
    ("tenants", "message"),
    [
        ([([6], [10]), ([5], [10])], "tier 0 has fewer slots than are reserved"),
        ([([6], [5])], "a reserve is no more than the limit"),
        ([([6, 6], [10, 10])], "one reserve and one limit per tier"),
        ([([0], [1])] * 65, "at most 64"),
    ],
)
def test_reserves_that_cannot_be_kept_are_refused(tenants: list[tuple[list[int], list[int]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Index([10], tenants=tenants)
