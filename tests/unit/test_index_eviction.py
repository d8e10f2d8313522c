"""Which blocks leave a full tier, and which never do."""

import numpy as np
import pytest

from tests.helpers.index_samples import NO_ROOTS, chain, match_and_release, sequence_of, store, store_quietly
from tiercel.index import EVICTION_AGE_BOUNDS_S, EVICTION_POLICIES, Index


def test_a_full_tier_evicts_the_least_recently_used_tails_first() -> None:
    index = Index([6])
    old = store(index, sequence_of(1, 2, 3))
    store(index, sequence_of(4, 5, 6))
    match_and_release(index, sequence_of(1, 2, 3))
    index.match(sequence_of(4, 5, 6)).release()
    reservation = index.reserve(sequence_of(7, 8), 0, owner=1)
    assert reservation.voided.tolist() == old.slots[:0:-1].tolist()
    assert match_and_release(index, sequence_of(1, 2, 3)) == 1
    assert index.stats(0).num_evicted == 2


def test_eviction_follows_the_order_of_use_of_a_thousand_sequences() -> None:
    index = Index([2000])
    order = np.random.default_rng(7).permutation(1000).tolist()
    sequences = [sequence_of(number, number) for number in range(1000)]
    slots = [store_quietly(index, sequence) for sequence in sequences]
    for number in order:
        index.match(sequences[number]).release()
    assert index.evict(0, 2000).tolist() == [slot for number in order for slot in slots[number][::-1]]


def test_a_prefix_in_use_outlives_its_branches() -> None:
    index = Index([16])
    for branch in range(4):
        store(index, sequence_of(1, 2, 10 + branch, 20))
    assert index.evict(0, 8).size == 8
    index.check()
    assert match_and_release(index, sequence_of(1, 2)) == 2
    assert index.evict(0, 16).size == 2


def test_a_store_never_evicts_its_own_path_and_may_come_out_short() -> None:
    index = Index([4])
    store(index, sequence_of(1, 2, 3))
    reservation = index.reserve(sequence_of(1, 2, 3, 4, 5, 6), 0, owner=1)
    assert (reservation.first_block, reservation.num_blocks, reservation.num_short) == (3, 1, 2)
    assert reservation.voided.size == 0
    index.commit(reservation)
    assert match_and_release(index, sequence_of(1, 2, 3, 4, 5, 6)) == 4


def test_a_store_that_leaves_a_run_may_evict_what_the_run_goes_on_with() -> None:
    index = Index([4])
    store(index, sequence_of(1, 2, 3, 4))
    reservation = index.reserve(sequence_of(1, 2, 8, 9, 9), 0, owner=1)
    assert (reservation.voided.size, reservation.num_blocks, reservation.num_short) == (2, 2, 1)
    index.commit(reservation)
    index.check()
    assert match_and_release(index, sequence_of(1, 2, 8, 9)) == 4


def test_pinned_and_writing_blocks_are_never_evicted() -> None:
    index = Index([6])
    store(index, sequence_of(1, 2, 3))
    match = index.match(sequence_of(1, 2))
    writing = index.reserve(sequence_of(7, 8), 0, owner=1)
    assert index.evict(0, 6).size == 1
    assert index.evict(0, 6).size == 0
    index.check()
    match.truncate(1)
    assert index.evict(0, 6).size == 1
    index.commit(writing)
    assert index.evict(0, 6).size == 0, "what was just written stays pinned for the moves that follow"
    writing.release()
    writing.release()
    match.release()
    match.release()
    assert index.evict(0, 6).size == 3
    assert index.stats(0).num_free == 6


def test_a_batch_of_slots_is_freed_at_once_when_a_tier_is_full() -> None:
    index = Index([8], evict_batch=[4])
    store(index, sequence_of(*range(8)))
    reservation = index.reserve(sequence_of(100), 0, owner=1)
    assert (reservation.voided.size, reservation.num_blocks, index.stats(0).num_free) == (4, 1, 3)


@pytest.mark.parametrize("policy", EVICTION_POLICIES)
def test_the_age_of_evicted_blocks_counts_from_their_last_use(policy: str) -> None:
    index = Index([8], policies=[policy])
    started_s = 1e6  # a clock that counts since the machine's start
    for number, first in enumerate((0, 100)):
        index.commit(index.reserve(sequence_of(*range(first, first + 4)), 0, owner=1, now_s=started_s + number))
    index.match(sequence_of(0, 1), now_s=started_s + 40).release()
    index.match(sequence_of(0, 1), touch=False, now_s=started_s + 99).release()
    assert index.evict(0, 8, now_s=started_s + 100).size == 8
    stats = index.stats(0)
    counts = dict(zip((*EVICTION_AGE_BOUNDS_S, np.inf), stats.evicted_age_counts, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {60.0: 2, 300.0: 6}
    assert stats.evicted_age_sum_s == pytest.approx(2 * 60 + 2 * 100 + 4 * 99)


@pytest.mark.parametrize("number", range(len(EVICTION_AGE_BOUNDS_S)))
def test_an_age_on_a_bound_counts_below_it(number: int) -> None:
    for age_s, counted in ((EVICTION_AGE_BOUNDS_S[number], number), (EVICTION_AGE_BOUNDS_S[number] + 0.5, number + 1)):
        index = Index([1])
        index.commit(index.reserve(sequence_of(1), 0, owner=1, now_s=5.0))
        index.evict(0, 1, now_s=5.0 + age_s)
        assert index.stats(0).evicted_age_counts.index(1) == counted


def test_what_is_dropped_or_recovered_and_never_used_has_no_age() -> None:
    index = Index([8])
    parents, keys = chain(1, 2, 3)
    index.restore_blocks(0, parents, keys, np.array([0, 1, 2], np.uint32), NO_ROOTS)
    index.match(sequence_of(1), now_s=50.0).release()
    store(index, sequence_of(7))
    index.drop(sequence_of(7), 0, 0)
    assert index.evict(0, 8, now_s=60.0).size == 3
    assert (sum(index.stats(0).evicted_age_counts), index.stats(0).evicted_age_sum_s) == (1, 10.0)
