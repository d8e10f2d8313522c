"""What a tier is about to lose, kept in a slower one; and priorities."""

import pytest

from tests.helpers.index_samples import match_and_release, sequence_of, store
from tiercel.index import EVICTION_POLICIES, Index


def test_a_demotion_names_the_next_victims_blocks_in_both_tiers() -> None:
    index = Index([6, 10])
    old = store(index, sequence_of(1, 2, 3))
    store(index, sequence_of(4, 5, 6))
    demotion = index.demote(0, 1, owner=7, num_blocks=10)
    assert demotion is not None
    match, reservation = demotion
    index.check()
    assert match.segments == ((0, 0, 3),)
    assert match.slots().tolist() == old.slots.tolist()
    assert (reservation.tier, reservation.owner, reservation.first_block, reservation.num_blocks) == (1, 7, 0, 3)
    assert reservation.keys().tobytes() == sequence_of(1, 2, 3).keys().tobytes()
    assert index.evict(0, 1).tolist() == [5], "what is being demoted is pinned"
    index.commit(reservation)
    match.release()
    assert index.evict(0, 3).tolist() == old.slots[::-1].tolist()
    assert index.match(sequence_of(1, 2, 3)).segments == ((1, 0, 3),)


def test_an_eviction_of_what_another_tier_keeps_stops_at_the_first_victim_that_it_lacks() -> None:
    index = Index([10, 10])
    store(index, sequence_of(1, 2, 3), tier=1)
    first = store(index, sequence_of(1, 2, 3))
    store(index, sequence_of(4, 5, 6), tier=1)
    second = store(index, sequence_of(4, 5, 6, 7))  # its end is in the faster tier alone
    store(index, sequence_of(8), tier=1)
    store(index, sequence_of(8))
    assert index.evict(0, 2, kept_in=1).tolist() == first.slots[:0:-1].tolist()
    assert index.evict(0, 10, kept_in=1).tolist() == [first.slots[0]]
    assert index.evict(0, 10, kept_in=1).size == 0
    assert index.evict(0, 1).tolist() == [second.slots[3]]
    assert index.evict(0, 10, kept_in=1).size == 4
    index.check()


def test_what_another_tier_is_only_being_given_is_not_kept_there() -> None:
    index = Index([4, 4])
    store(index, sequence_of(1, 2))
    writing = index.reserve(sequence_of(1, 2), 1, owner=1)
    assert index.evict(0, 2, kept_in=1).size == 0
    index.commit(writing)
    assert index.evict(0, 2, kept_in=1).size == 2


def test_an_eviction_of_what_another_tier_keeps_passes_over_what_is_pinned() -> None:
    index = Index([4, 4])
    store(index, sequence_of(1))
    store(index, sequence_of(2), tier=1)
    kept = store(index, sequence_of(2))
    match = index.match(sequence_of(1), touch=False)
    assert index.evict(0, 4, kept_in=1).tolist() == kept.slots.tolist()
    match.release()
    assert index.evict(0, 4, kept_in=1).size == 0
    with pytest.raises(ValueError, match="kept_in: another tier"):
        index.evict(0, 1, kept_in=0)


def test_a_demotion_goes_on_where_the_target_ends_and_takes_what_was_asked_for() -> None:
    index = Index([10, 10])
    store(index, sequence_of(1, 2), tier=1)
    store(index, sequence_of(1, 2, 3, 4, 5, 6))
    first = index.demote(0, 1, owner=0, num_blocks=3)
    assert first is not None
    assert (first[1].first_block, first[1].num_blocks, first[1].parent_key) == (
        2,
        3,
        sequence_of(1, 2).keys()[1].tobytes(),
    )
    index.commit(first[1])
    first[0].release()
    second = index.demote(0, 1, owner=0, num_blocks=3)
    assert second is not None
    assert (second[1].first_block, second[1].num_blocks) == (5, 1)
    index.commit(second[1])
    second[0].release()
    index.check()
    assert index.demote(0, 1, owner=0, num_blocks=3) is None, "the target lacks nothing"


def test_a_demotion_takes_the_ancestors_that_the_target_lacks_and_skips_pinned_victims() -> None:
    index = Index([10, 10])
    store(index, sequence_of(1, 2, 3))
    store(index, sequence_of(1, 2, 4))
    pinned = index.match(sequence_of(1, 2, 3), touch=False)
    demotion = index.demote(0, 1, owner=0, num_blocks=9)
    assert demotion is not None
    assert demotion[1].keys().tobytes() == sequence_of(1, 2, 4).keys().tobytes()
    pinned.release()


def test_a_demotion_makes_room_in_the_target_or_is_none() -> None:
    index = Index([4, 3])
    store(index, sequence_of(7, 8, 9), tier=1)
    store(index, sequence_of(1, 2))
    pinned = index.match(sequence_of(7, 8, 9))
    assert index.demote(0, 1, owner=0, num_blocks=2) is None
    pinned.release()
    demotion = index.demote(0, 1, owner=0, num_blocks=2)
    assert demotion is not None
    assert (demotion[1].voided.size, demotion[1].num_blocks, demotion[1].num_short) == (2, 2, 0)
    del demotion
    index.check()
    assert index.stats(1).num_free == 2, "dropped without a commit, it is aborted"


def test_a_demotion_stops_before_a_block_that_is_being_written() -> None:
    index = Index([6, 6])
    store(index, sequence_of(1, 2))
    writing = index.reserve(sequence_of(1, 2, 3), 0, owner=1)
    assert index.demote(0, 1, owner=0, num_blocks=6) is None, "nothing can leave yet"
    index.commit(writing)
    writing.release()
    assert index.demote(0, 1, owner=0, num_blocks=6) is not None


def test_tiers_and_priorities_out_of_range_are_named() -> None:
    index = Index([4, 4])
    with pytest.raises(ValueError, match="two tiers"):
        index.demote(1, 1, owner=0, num_blocks=1)
    with pytest.raises(ValueError, match="not number 2"):
        index.demote(0, 2, owner=0, num_blocks=1)
    with pytest.raises(ValueError, match="priority: 0 to 100"):
        index.reserve(sequence_of(1), 0, owner=0, priority=101)


@pytest.mark.parametrize("policy", EVICTION_POLICIES)
def test_blocks_of_lower_priority_leave_first_whatever_their_use(policy: str) -> None:
    index = Index([9], policies=[policy])
    for numbers, priority in (((1, 2, 3), 50), ((4, 5, 6), 0), ((7, 8, 9), 100)):
        index.commit(index.reserve(sequence_of(*numbers), 0, owner=0, priority=priority))
    match_and_release(index, sequence_of(4, 5, 6))
    index.check()
    assert index.evict(0, 9).tolist() == [5, 4, 3, 2, 1, 0, 8, 7, 6]


def test_a_path_keeps_the_highest_priority_that_it_was_stored_with() -> None:
    index = Index([8])
    store(index, sequence_of(1, 2, 3, 4))
    index.commit(index.reserve(sequence_of(1, 2), 0, owner=0, priority=10))
    index.check()
    store(index, sequence_of(5, 6))
    store(index, sequence_of(1, 2))
    assert index.evict(0, 4).tolist() == [3, 2, 5, 4]
    assert match_and_release(index, sequence_of(1, 2)) == 2


def test_an_eviction_that_keeps_a_copy_elsewhere_ends_where_there_is_none_and_passes_over_what_is_pinned() -> None:
    index = Index([9, 9])
    copied = store(index, sequence_of(1, 2))
    store(index, sequence_of(3))
    store(index, sequence_of(5, 6))
    for sequence in (sequence_of(1, 2), sequence_of(5, 6)):
        store(index, sequence, tier=1)
    pinned = index.match(sequence_of(3), touch=False)
    assert index.evict(0, 9, kept_in=1).tolist() == [*copied.slots[::-1].tolist(), 4, 3]
    pinned.release()
    assert index.evict(0, 9, kept_in=1).tolist() == [], "the other tier has no copy of 3"
    assert index.evict(0, 9).tolist() == [2]
    index.check()


def test_what_the_other_tier_is_still_being_given_is_no_copy() -> None:
    index = Index([4, 4])
    store(index, sequence_of(1, 2))
    writing = index.reserve(sequence_of(1, 2), 1, owner=0)
    assert index.evict(0, 2, kept_in=1).tolist() == []
    index.commit(writing)
    assert index.evict(0, 2, kept_in=1).tolist() == [1, 0]


def test_an_eviction_spares_what_another_tier_holds_and_so_does_a_demotion() -> None:
    index = Index([4, 4])
    store(index, sequence_of(1), tier=0)
    store(index, sequence_of(1, 2), tier=1)
    store(index, sequence_of(3, 4), tier=1)
    store(index, sequence_of(5, 6))
    assert index.evict(1, 4, spared_in=0).tolist() == [1, 3, 2], "block 1 lies in both"
    store(index, sequence_of(7), tier=0)
    store(index, sequence_of(7, 8, 9), tier=1)
    demotion = index.demote(0, 1, owner=0, num_blocks=4)
    assert demotion is not None
    assert demotion[1].keys().tobytes() == sequence_of(5, 6).keys().tobytes()
    assert index.match(sequence_of(7), touch=False).num_blocks == 1
    index.check()
