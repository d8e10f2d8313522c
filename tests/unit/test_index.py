"""What the index promises, one promise a test."""

import gc

import numpy as np
import pytest

from tests.helpers.index_samples import flags, match_and_release, sequence_of, store
from tiercel.index import Index, Match


def test_a_match_gives_back_the_slots_that_were_stored() -> None:
    index = Index([8])
    stored = store(index, sequence_of(1, 2, 3, 4))
    match = index.match(sequence_of(1, 2, 3, 9))
    assert match.slots().tolist() == stored.slots[:3].tolist()
    assert match.slots(1, 2).tolist() == stored.slots[1:2].tolist()
    assert match.segments == ((0, 0, 3),)
    assert (match.num_blocks, match.num_pending) == (3, 0)


def test_packed_slots_and_keys_are_those_of_the_arrays() -> None:
    index = Index([4])
    store(index, sequence_of(1, 2, 3))
    reservation = index.reserve(sequence_of(7, 8, 9), 0, owner=1)
    assert reservation.num_voided > 0
    assert reservation.packed_slots == reservation.slots.astype("<u4").tobytes()
    assert reservation.packed_voided == reservation.voided.astype("<u4").tobytes()
    assert reservation.packed_keys == reservation.keys().tobytes()
    assert len(index.commit(reservation)) == 0
    match = index.match(sequence_of(7, 8, 9))
    assert match.packed_slots() == match.slots().astype("<u4").tobytes()
    assert match.packed_slots(1, 2) == match.slots(1, 2).astype("<u4").tobytes()
    with pytest.raises(ValueError, match="start, stop"):
        match.packed_slots(2, 9)


def test_a_match_takes_each_block_from_its_fastest_tier() -> None:
    index = Index([2, 8])
    sequence = sequence_of(1, 2, 3, 4)
    slow = store(index, sequence, tier=1)
    fast = store(index, sequence, tier=0)
    match = index.match(sequence)
    assert fast.num_short == 2
    assert match.segments == ((0, 0, 2), (1, 2, 2))
    assert match.slots().tolist() == [*fast.slots.tolist(), *slow.slots[2:].tolist()]


def test_a_block_being_written_is_taken_from_a_slower_tier_that_has_it() -> None:
    index = Index([8, 8])
    sequence = sequence_of(1, 2)
    store(index, sequence, tier=1)
    writing = index.reserve(sequence, 0, owner=1)
    assert index.match(sequence).segments == ((1, 0, 2),)
    index.commit(writing)
    assert index.match(sequence).segments == ((0, 0, 2),)


def test_the_same_tokens_under_another_root_are_a_miss() -> None:
    index = Index([8])
    store(index, sequence_of(1, 2))
    assert match_and_release(index, sequence_of(1, 2, root=bytes(16))) == 0


def test_a_miss_hashes_no_further_than_its_first_block() -> None:
    index = Index([8])
    sequence = sequence_of(*range(100))
    assert match_and_release(index, sequence) == 0
    assert sequence.num_hashed_blocks == 1


def test_a_sequence_that_leaves_a_long_run_is_hashed_little_further() -> None:
    index = Index([4096])
    store(index, sequence_of(*range(2000)))
    sequence = sequence_of(*range(100), *range(10_000, 12_000))
    assert match_and_release(index, sequence) == 100
    assert sequence.num_hashed_blocks <= 100 + 64


def test_blocks_being_written_are_pending_and_a_second_store_attaches() -> None:
    index = Index([8])
    first = index.reserve(sequence_of(1, 2, 3), 0, owner=7)
    second = index.reserve(sequence_of(1, 2, 3, 4), 0, owner=8)
    assert (second.attached, second.first_block, second.num_blocks) == (((0, 3, 7),), 3, 1)
    assert second.parent_key == sequence_of(1, 2, 3).keys()[2].tobytes()
    match = index.match(sequence_of(1, 2, 3, 4))
    assert (match.num_blocks, match.num_pending) == (0, 4)
    index.commit(second)
    match = index.match(sequence_of(1, 2, 3, 4))
    assert (match.num_blocks, match.num_pending) == (0, 3)
    index.commit(first)
    assert match_and_release(index, sequence_of(1, 2, 3, 4)) == 4


def test_a_run_splits_where_sequences_part_and_a_reservation_survives_it() -> None:
    index = Index([16])
    writing = index.reserve(sequence_of(1, 2, 3, 4, 5), 0, owner=1)
    store(index, sequence_of(1, 2, 9))
    store(index, sequence_of(1, 2, 3, 4, 8))
    assert index.stats(0).num_runs == 5
    assert index.commit(writing).size == 0
    index.check()
    assert match_and_release(index, sequence_of(1, 2, 3, 4, 5)) == 5
    assert match_and_release(index, sequence_of(1, 2, 9)) == 3


def test_storing_block_by_block_makes_one_run() -> None:
    index = Index([1024])
    sequence = sequence_of()
    for block in range(1000):
        sequence.extend(np.array([block], np.int32))
        index.commit(index.reserve(sequence, 0, owner=1))
    index.check()
    assert index.stats(0).num_runs == 1
    assert match_and_release(index, sequence) == 1000


def test_a_second_tier_shares_the_runs_of_the_first() -> None:
    index = Index([16, 16])
    sequence = sequence_of(*range(10))
    store(index, sequence, tier=0)
    store(index, sequence, tier=1)
    assert index.stats(0).num_runs == 1
    assert index.evict(0, 10).size == 10
    assert match_and_release(index, sequence) == 10


def test_a_destroyed_reservation_is_aborted() -> None:
    index = Index([8])
    reservation = index.reserve(sequence_of(1, 2, 3), 0, owner=1)
    assert index.stats(0).num_writing == 3
    del reservation
    gc.collect()
    assert index.stats(0).num_free == 8
    index.check()


def test_results_outlive_their_index() -> None:
    index = Index([8])
    store(index, sequence_of(1, 2))
    match = index.match(sequence_of(1, 2))
    reservation = index.reserve(sequence_of(3, 4), 0, owner=1)
    del index
    assert match.slots().size == 2
    del match, reservation


def test_a_reservation_commits_once_and_to_its_own_index() -> None:
    index = Index([8])
    reservation = index.reserve(sequence_of(1, 2), 0, owner=1)
    with pytest.raises(ValueError, match="another index"):
        Index([8]).commit(reservation)
    with pytest.raises(ValueError, match="2 blocks"):
        index.commit(reservation, flags(3))
    index.commit(reservation)
    with pytest.raises(ValueError, match="before"):
        index.commit(reservation)


def test_a_failed_block_leaves_with_its_descendants_and_all_others_stay() -> None:
    index = Index([16])
    first = index.reserve(sequence_of(1, 2, 3, 4), 0, owner=1)
    below = store(index, sequence_of(1, 2, 3, 9, 9))
    beside = store(index, sequence_of(1, 8))
    voided = index.commit(first, flags(4, 2))
    index.check()
    assert sorted(voided.tolist()) == sorted([*first.slots[2:].tolist(), *below.slots.tolist()])
    assert match_and_release(index, sequence_of(1, 2, 3, 4)) == 2
    assert match_and_release(index, sequence_of(1, 8)) == 2
    assert index.stats(0).num_free == 16 - 4 - beside.num_blocks, "slots may still be under copy before the release"
    first.release()
    assert index.stats(0).num_free == 16 - 2 - beside.num_blocks


def test_a_failed_parent_takes_what_others_write_below_and_their_slots_come_back_at_their_commit() -> None:
    index = Index([16])
    parent = index.reserve(sequence_of(1, 2), 0, owner=1)
    child = index.reserve(sequence_of(1, 2, 3, 4), 0, owner=2)
    assert index.commit(parent, flags(2, 0)).tolist() == parent.slots[::-1].tolist()
    assert index.stats(0).num_writing == 2
    again = index.reserve(sequence_of(1, 2, 3, 4), 0, owner=3)
    assert again.num_blocks == 4
    assert not set(again.slots.tolist()) & set(child.slots.tolist())
    assert sorted(index.commit(child).tolist()) == child.slots.tolist()
    assert index.commit(again).size == 0
    index.check()
    assert match_and_release(index, sequence_of(1, 2, 3, 4)) == 4


def test_a_commit_after_a_clear_returns_all_slots_as_void() -> None:
    index = Index([8])
    store(index, sequence_of(5))
    match = index.match(sequence_of(5))
    reservation = index.reserve(sequence_of(1, 2, 3), 0, owner=1)
    index.clear()
    assert (index.generation, match.generation) == (1, 0)
    assert sorted(index.commit(reservation).tolist()) == reservation.slots.tolist()
    reservation.release()
    assert index.stats(0).num_free == 7
    match.release()
    assert index.stats(0).num_free == 8
    index.check()


def test_a_dropped_block_is_gone_at_once_and_its_slot_free_when_its_readers_are_done() -> None:
    index = Index([8, 8])
    stored = store(index, sequence_of(1, 2, 3))
    store(index, sequence_of(1, 2, 3), tier=1)
    readers = [index.match(sequence_of(1, 2, 3)) for _ in range(2)]
    assert sorted(index.drop(sequence_of(1, 2, 3), 1, 0).tolist()) == stored.slots[1:].tolist()
    index.check()
    assert index.match(sequence_of(1, 2, 3)).segments == ((0, 0, 1), (1, 1, 2))
    assert index.stats(0).num_free == 5
    readers.pop().release()
    assert index.stats(0).num_free == 5
    readers.pop().release()
    assert index.stats(0).num_free == 7
    assert index.drop(sequence_of(1, 2, 3), 1, 0).size == 0
    with pytest.raises(ValueError, match="no such full block"):
        index.drop(sequence_of(1, 2, 3), 3, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacities": []}, "1 to 8 tiers"),
        ({"capacities": [2**31]}, "2\\^31"),
        ({"capacities": [1], "policies": ["random"]}, "known: lru"),
        ({"capacities": [1], "policies": ["lru", "lru"]}, "one name per tier"),
        ({"capacities": [1], "evict_batch": [1, 1]}, "one number per tier"),
        ({"capacities": [1], "tokens_per_block": 0}, "tokens_per_block: at least 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Index(**options)  # type: ignore[arg-type]


def test_calls_on_a_tier_that_does_not_exist_are_refused() -> None:
    index = Index([1])
    for call in (
        lambda: index.evict(1, 1),
        lambda: index.evict(0, 1, kept_in=1),
        lambda: index.reserve(sequence_of(1), 1, owner=1),
        lambda: index.stats(1),
        lambda: index.export_blocks(1),
    ):
        with pytest.raises(ValueError, match="1 tiers"):
            call()


def test_an_index_of_no_slots_matches_nothing_and_reserves_nothing() -> None:
    index = Index([0])
    reservation = index.reserve(sequence_of(1, 2), 0, owner=1)
    assert (reservation.num_blocks, reservation.num_short) == (0, 2)
    assert index.commit(reservation).size == 0
    match: Match = index.match(sequence_of(1, 2))
    assert match.segments == ()
