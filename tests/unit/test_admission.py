"""Which blocks reach the disk: the sketch, second hits, promotion and the write budget; without a byte moved."""

import random

import numpy as np
import pytest

from tests.helpers.control_samples import BLOCK_BYTES, DISK, HOST, Bench, sequence
from tests.helpers.seeds import chosen_seed
from tiercel.control import Admission
from tiercel.control.admission import WriteBudget
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import FrequencySketch

SECOND = Admission.ON_SECOND_HIT
DAY_S = 86400


def test_the_sketch_counts_each_block_once_a_sequence_and_never_too_little() -> None:
    sketch = FrequencySketch(4096)
    for number in range(1, 4):
        again = sequence(100, seed=1)
        sketch.see(again, 40)
        sketch.see(again, 40)
        sketch.see(again, 100)
        assert (sketch.counts(again.keys()) >= number).all()
        assert sketch.counts(again.keys()).max() <= number + 1
    assert sketch.count_leading(sequence(100, seed=1), 100, 3) == 100
    assert sketch.count_leading(sequence(100, seed=1), 30, 3) == 30
    assert sketch.count_leading(sequence(100, seed=2), 100, 1) < 10


def test_the_sketch_seldom_takes_an_unseen_block_for_a_seen_one_when_its_windows_are_full() -> None:
    sketch = FrequencySketch(20_000)
    for seed in range(40):
        sketch.see(sequence(1000, seed=seed), 1000)
    unseen = sketch.counts(sequence(5000, seed=99).keys())
    assert (unseen > 0).mean() < 0.05
    assert (unseen > 1).mean() < 0.01


def test_the_sketch_remembers_over_the_end_of_a_window_and_forgets_after_two() -> None:
    sketch = FrequencySketch(1000)
    sketch.see(sequence(10, seed=1), 10)
    sketch.see(sequence(1000, seed=2), 1000)
    assert (sketch.counts(sequence(10, seed=1).keys()) >= 1).all()
    sketch.see(sequence(1000, seed=3), 1000)
    sketch.see(sequence(1000, seed=4), 1000)
    assert (sketch.counts(sequence(10, seed=1).keys()) == 0).mean() > 0.8


@pytest.mark.parametrize("window", [0, 2**28 + 1])
def test_a_window_out_of_range_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        FrequencySketch(window)


def test_through_writes_at_the_first_store() -> None:
    bench = Bench()
    bench.store(sequence(8, seed=1))
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (8, 8)


def test_a_block_that_one_request_alone_met_stays_off_the_disk_however_often_it_asks() -> None:
    bench = Bench(ssd_admission=SECOND)
    request = sequence(8, seed=1)
    for _ in range(3):
        bench.look_up(request)
        bench.store(request)
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (8, 0)


def test_a_second_store_or_a_lookup_that_hits_admits_a_block() -> None:
    for seed, meet in ((1, "store"), (2, "lookup")):
        bench = Bench(ssd_admission=SECOND)
        bench.store(sequence(8, seed=seed))
        request = sequence(12, seed=seed)
        common = request.num_blocks
        if meet == "lookup":
            common = bench.look_up(request)
        bench.store(request)
        expected = bench.num_held(HOST, sequence(8, seed=seed))
        assert bench.num_held(DISK, request) == expected == min(8, common)


def test_only_the_leading_run_that_qualifies_goes_to_disk() -> None:
    bench = Bench(ssd_admission=SECOND)
    bench.store(sequence(5, seed=1))
    bench.store(sequence(12, seed=1))
    assert bench.num_ready(DISK) == 5
    bench.store(sequence(12, seed=1))
    assert bench.num_ready(DISK) == 12
    bench.check()


def test_blocks_of_the_host_tier_that_qualify_are_promoted_when_the_store_begins_behind_them() -> None:
    bench = Bench(ssd_admission=SECOND)
    bench.store(sequence(8, seed=1))
    request = sequence(12, seed=1)
    assert bench.look_up(request) == 8
    stored = bench.store(request, first_block=8)
    assert bench.num_held(DISK, request) == 8
    assert stored.statuses.tolist() == [0] * 4
    again = sequence(12, seed=1)
    assert bench.look_up(again) == 12
    bench.store(again, first_block=12)
    assert bench.num_held(DISK, again) == 12
    bench.check()


def test_a_gap_on_disk_is_closed_from_the_host_tier_under_through_too() -> None:
    bench = Bench()
    bench.store(sequence(8, seed=1), targets=[HOST])  # the disk's queue was full
    bench.store(sequence(12, seed=1), first_block=8)
    assert bench.num_held(DISK, sequence(12, seed=1)) == 12
    bench.check()


def test_a_promotion_that_fails_leaves_the_host_tier_as_it_was() -> None:
    bench = Bench()
    bench.store(sequence(8, seed=1), targets=[HOST])
    promotion, _ = bench.control.begin_promotion(99, sequence(8, seed=1), 8, deadline_s=1.0)
    assert promotion is not None
    bench.finish(promotion, promotion.statuses.dtype.type(3))  # type: ignore[arg-type]
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (8, 0)
    bench.check()


def test_a_disk_without_a_host_tier_takes_what_qualifies_and_reports_the_rest_as_missing() -> None:
    bench = Bench(host=0, ssd_admission=SECOND)
    assert set(bench.store(sequence(8, seed=1)).statuses) == {1}
    stored = bench.store(sequence(12, seed=1))
    assert stored.statuses.tolist() == [0] * 8 + [1] * 4
    assert bench.num_ready(DISK) == 8


def test_the_budget_never_spends_more_than_an_hour_saved_and_what_time_brought() -> None:
    seed = chosen_seed()
    rng = random.Random(seed)
    rate = 10_000_000
    budget, spent, start_s = WriteBudget(rate), 0, 500.0
    now_s = start_s
    for _ in range(2000):
        now_s += rng.expovariate(1 / 100)
        wanted = rng.randrange(200_000)
        if wanted <= budget.available(now_s):
            budget.spend(wanted)
            spent += wanted
        assert spent <= rate * (3600 + now_s - start_s) / DAY_S + 1
    assert spent > 0.8 * rate * (now_s - start_s) / DAY_S


def test_a_clock_that_goes_back_brings_no_budget() -> None:
    budget = WriteBudget(24_000)
    budget.available(1000.0)
    budget.spend(1000)
    assert budget.available(0.0) == 0
    assert budget.available(1.0) == 0
    assert budget.available(4600.0) == 1000


def test_time_between_callers_that_come_out_of_order_is_counted_once() -> None:
    budget = WriteBudget(24_000)
    budget.available(1000.0)
    budget.spend(1000)
    for _ in range(100):
        for now_s in (1000.0, 1072.0, 990.0):
            budget.available(now_s)
    assert budget.available(1072.0) == 20


def test_over_budget_nothing_is_admitted_it_is_named_and_time_brings_more() -> None:
    bench = Bench(ssd_write_budget_per_day=24 * 10 * BLOCK_BYTES)
    assert bench.store(sequence(8, seed=1)).refusals == ()
    assert bench.store(sequence(8, seed=2)).refusals == ("budget",)
    assert bench.num_ready(DISK) == 10
    assert bench.store(sequence(8, seed=3)).refusals == ("budget",)
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (24, 10)
    bench.now_s += 3600
    assert bench.store(sequence(8, seed=3)).refusals == ()
    assert bench.num_ready(DISK) == 18
    bench.check()


def test_a_promotion_names_the_budget_that_held_blocks_back_and_nothing_else_does() -> None:
    bench = Bench(ssd_write_budget_per_day=24 * 10 * BLOCK_BYTES)

    def promote(number: int, wanted: TokenSequence, stop: int) -> tuple[int, tuple[str, ...]]:
        operation, refusals = bench.control.begin_promotion(number, wanted, stop, deadline_s=1.0, now_s=bench.now_s)
        if operation is None:
            return 0, refusals
        bench.finish(operation)
        return len(operation.statuses), refusals

    for seed in (1, 2, 3):
        bench.store(sequence(8, seed=seed), targets=[HOST])
    assert promote(101, sequence(8, seed=1), 8) == (8, ())
    assert promote(102, sequence(8, seed=1), 8) == (0, ()), "the disk has them"
    assert promote(103, sequence(8, seed=2), 8) == (2, ("budget",))
    assert promote(104, sequence(8, seed=3), 8) == (0, ("budget",))
    assert promote(105, sequence(8, seed=9), 8) == (0, ()), "the host tier has none of them"
    bench.check()


def test_blocks_that_the_disk_has_cost_no_budget() -> None:
    bench = Bench(ssd_write_budget_per_day=24 * 10 * BLOCK_BYTES)
    for _ in range(5):
        assert bench.store(sequence(8, seed=1)).refusals == ()
    assert bench.store(sequence(10, seed=1)).refusals == ()
    assert bench.num_ready(DISK) == 10


def test_counts_want_keys() -> None:
    with pytest.raises(TypeError):
        FrequencySketch(10).counts(np.zeros((2, 8), np.uint8))
