"""choose_split against brute force, and messages against msgpack."""

import math
import random

import msgspec
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tiercel.costs import PrefillCostModel, PrefillCurve, TransferCost, TransferCostModel
from tiercel.plan import (
    Completion,
    Move,
    OperationKind,
    Plan,
    Segment,
    choose_split,
    cut_segments,
    pack_slots,
    unpack_slots,
)
from tiercel.tiers.base import TierName

BLOCK_BYTES = 1 << 20
FAST = TransferCost(1e-4, 10e9)
SLOW = TransferCost(1e-3, 1e8)


def split(segments: list[Segment], costs: dict[TierName, TransferCost], prefill: PrefillCurve, num_tokens: int) -> int:
    return choose_split(
        segments,
        num_tokens=num_tokens,
        tokens_per_block=16,
        block_bytes=BLOCK_BYTES,
        costs=[costs[segment.tier] for segment in segments],
        prefill=prefill,
    )


def test_everything_is_loaded_when_recompute_is_slow() -> None:
    segments = [Segment(TierName.HOST, 0, 10), Segment(TierName.DISK, 10, 10)]
    assert split(segments, {TierName.HOST: FAST, TierName.DISK: SLOW}, PrefillCurve(token_s=0.1), 400) == 20


def test_only_the_fast_tier_is_loaded_when_the_slow_one_loses_to_recompute() -> None:
    segments = [Segment(TierName.HOST, 0, 10), Segment(TierName.DISK, 10, 10)]
    prefill = PrefillCurve(token_s=1e-4)  # 16 tokens: 1.6 ms; a block takes 0.1 ms from host and 10 ms from disk
    assert split(segments, {TierName.HOST: FAST, TierName.DISK: SLOW}, prefill, 400) == 10


def test_nothing_is_loaded_when_recompute_is_cheaper_than_the_first_byte() -> None:
    prefill = PrefillCurve(token_s=1e-9)
    assert split([Segment(TierName.HOST, 0, 10)], {TierName.HOST: FAST}, prefill, 400) == 0


def test_a_full_queue_counts_as_time() -> None:
    waiting = TransferCost(1e-4, 10e9, queue_wait_s=10.0)
    assert split([Segment(TierName.HOST, 0, 10)], {TierName.HOST: waiting}, PrefillCurve(token_s=1e-3), 400) == 0


def test_the_chosen_split_is_never_slower_than_any_other() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for _ in range(300):
        tiers = [TierName.HOST, TierName.DISK, TierName.REMOTE][: rng.randint(1, 3)]
        costs = {
            tier: TransferCost(rng.uniform(0, 0.01), 10 ** rng.uniform(7, 11), rng.choice([0, rng.random() * 0.1]))
            for tier in tiers
        }
        segments, first = [], 0
        for tier in tiers:
            segments.append(Segment(tier, first, rng.randint(1, 40)))
            first += segments[-1].num_blocks
        prefill = PrefillCurve(rng.uniform(0, 0.01), 10 ** rng.uniform(-6, -2), 10 ** rng.uniform(-10, -6))
        num_tokens = first * 16 + rng.randint(0, 500)
        seconds = [total_seconds(segments, costs, prefill, num_tokens, blocks) for blocks in range(first + 1)]
        chosen = split(segments, costs, prefill, num_tokens)
        assert seconds[chosen] <= min(seconds) * (1 + 1e-9), f"seed {seed}"


def total_seconds(
    segments: list[Segment],
    costs: dict[TierName, TransferCost],
    prefill: PrefillCurve,
    num_tokens: int,
    blocks: int,
) -> float:
    load = sum(costs[s.tier].seconds(s.num_blocks * BLOCK_BYTES) for s in cut_segments(segments, blocks))
    return load + prefill.seconds(blocks * 16, num_tokens - blocks * 16)


def test_messages_survive_msgpack() -> None:
    move = Move(
        source=TierName.DISK,
        target=TierName.HOST,
        first_block=0,
        num_blocks=2,
        source_slots=pack_slots(np.array([3, 4], np.uint32)),
        target_slots=pack_slots(np.array([7, 1], np.uint32)),
    )
    plan = Plan(ticket=1, kind=OperationKind.LOAD, first_block=0, num_blocks=2, moves=(move,), frees=(), deadline_s=1.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan
    completion = Completion(ticket=1, move=0, statuses=b"\0\1", num_bytes=1, busy_s=0.5, queued_s=0.1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(completion), type=Completion) == completion
    assert_array_equal(unpack_slots(move.target_slots), [7, 1])


def test_a_tiers_rate_and_latency_are_learnt_from_transfers() -> None:
    model = TransferCostModel(latency_s=1.0, bytes_per_s=1.0)
    rng = random.Random(1)
    for _ in range(300):
        num_bytes = rng.choice([1 << 16, 1 << 20, 1 << 24, 1 << 28])
        model.observe(num_bytes, (0.002 + num_bytes / 2e9) * rng.uniform(0.95, 1.05))
    assert model.cost.latency_s == pytest.approx(0.002, rel=0.05)
    assert model.cost.bytes_per_s == pytest.approx(2e9, rel=0.05)


@pytest.mark.parametrize("num_before", [3, 50])
@pytest.mark.parametrize("times_slower", [2, 10, 1e3, 1e6])
def test_a_transfer_that_was_stopped_in_between_hardly_changes_what_is_learnt(
    num_before: int, times_slower: float
) -> None:
    """A client that is stopped while it copies tells the time until it goes on; hits must not be declined for that."""
    model = TransferCostModel(latency_s=1e-5, bytes_per_s=1e10)
    sizes = [1 << 16, 1 << 20, 1 << 24]
    for number in range(num_before):
        model.observe(sizes[number % 3], 2e-5 + sizes[number % 3] / 8e9)
    before = [model.cost.seconds(size) for size in sizes]
    for size in sizes:
        model.observe(size, times_slower * (2e-5 + size / 8e9))
    for size, seconds in zip(sizes, before, strict=True):
        assert model.cost.seconds(size) <= 3 * seconds, "three of them in a row"
    for size in sizes:
        model.observe(size, 2e-5 + size / 8e9)
    for size, seconds in zip(sizes, before, strict=True):
        assert model.cost.seconds(size) <= 2 * seconds, "and as many good ones"


def test_a_declined_tier_is_believed_less_until_it_is_tried_again() -> None:
    model = TransferCostModel(latency_s=1.0, bytes_per_s=1e6)
    for _ in range(400):
        model.decline()
    assert model.cost.seconds(1 << 20) < 0.01
    model.observe(1 << 20, 2.0)
    assert model.cost.seconds(1 << 20) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("seconds", [5e-324, 1e-200, 1e200, math.inf, math.nan, 0.0, -1.0])
def test_times_that_cannot_be_weighed_are_left_out(seconds: float) -> None:
    model = TransferCostModel(latency_s=1e-5, bytes_per_s=1e10)
    before = model.cost
    model.observe(1 << 20, seconds)
    assert model.cost == before
    prefill = PrefillCostModel()
    with pytest.raises(ValueError, match="a prefill needs"):
        prefill.observe(0, 16, seconds)
    assert prefill.num_observations == 0


def test_the_prefill_curve_is_learnt_from_timings() -> None:
    model = PrefillCostModel()
    truth = PrefillCurve(0.01, 2e-4, 1e-8)
    rng = random.Random(2)
    for _ in range(300):
        cached, new = rng.choice([0, 4096, 32768]), rng.randint(16, 8192)
        model.observe(cached, new, truth.seconds(cached, new))
    for cached, new in ((0, 1000), (10000, 500), (0, 8000)):
        assert model.curve.seconds(cached, new) == pytest.approx(truth.seconds(cached, new), rel=0.02)


@pytest.mark.parametrize(
    ("cached", "new", "seconds"), [(-1, 1, 1.0), (0, 0, 1.0), (0, 1, 0.0), (0, 1, float("nan")), (0, 1, float("inf"))]
)
def test_a_senseless_timing_is_refused(cached: int, new: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="a prefill needs"):
        PrefillCostModel().observe(cached, new, seconds)
