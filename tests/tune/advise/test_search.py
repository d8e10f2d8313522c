"""The search, on landscapes whose best is known: found with few evaluations, never worse for more room, the same every time."""

import random
from dataclasses import replace

import pytest

from tests.helpers.seeds import chosen_seed
from tests.tune.advise.stand_in import GIB, Landscape, random_landscape
from tiercel.tune.advise.asking import Budget, Slo
from tiercel.tune.advise.candidate import DIMENSIONS, Candidate
from tiercel.tune.advise.objective import TIE, Objective
from tiercel.tune.advise.outcome import Outcome
from tiercel.tune.advise.search import Trials, search
from tiercel.tune.advise.space import Space, capacities, space_of

BUDGET = Budget(host_bytes=64 * GIB, disk_bytes=1024 * GIB)
POLICIES = ("lru", "2q", "slru", "lfu")


def small_space(budget: Budget = BUDGET) -> Space:
    return Space(
        host_bytes=capacities(budget.host_bytes, none=True)[-4:],
        disk_bytes=(0, *capacities(budget.disk_bytes, none=False)[-3:]),
        tokens_per_block=(16, 64),
        eviction_policy=POLICIES,
        ssd_eviction_policy=("lru", "2q"),
        ssd_admission=("through", "on_second_hit", "on_evict"),
    )


def found(landscape: Landscape, space: Space, objective: Objective, limit: int) -> tuple[Candidate, Trials]:
    trials = Trials(evaluate=landscape.evaluate, limit=limit)
    return search(space, trials, objective, landscape.forecast), trials


def best_value(landscape: Landscape, space: Space, objective: Objective) -> float:
    return min(objective.value(candidate, landscape.evaluate(candidate)) for candidate in space.candidates())


def test_the_known_optimum_is_found() -> None:
    landscape = Landscape(
        policy={"2q": 2.5},
        disk_policy={"lfu": 1.3},
        admission={"on_second_hit": 1.5},
        slowness={16: 0.2, 32: 0.1, 128: 0.1},
    )
    landscape.half_bytes, landscape.disk_worth = 512 * GIB, 0.5
    space = replace(small_space(), tokens_per_block=(16, 32, 64, 128), ssd_eviction_policy=POLICIES)
    choice, _ = found(landscape, space, Objective(), 40)
    assert choice == Candidate(
        host_bytes=64 * GIB,
        disk_bytes=1024 * GIB,
        tokens_per_block=64,
        eviction_policy="2q",
        ssd_eviction_policy="lfu",
        ssd_admission="on_second_hit",
    )


def test_a_tenth_of_the_grid_is_within_two_percent_of_its_best() -> None:
    draw = random.Random(chosen_seed())
    space = small_space()
    limit = len(space.candidates()) // 10
    for _ in range(20):
        landscape = random_landscape(draw)
        choice, trials = found(landscape, space, Objective(), limit)
        assert len(trials.outcomes) <= limit
        best = best_value(landscape, space, Objective())
        assert Objective().value(choice, trials.outcomes[choice]) <= 1.02 * best, landscape


def test_each_way_of_using_the_tiers_is_tried_before_any_is_refined() -> None:
    space = replace(small_space(), host_bytes=(0, 16 * GIB, 64 * GIB))
    _, trials = found(Landscape(admission={"on_evict": 1.5}), space, Objective(), 5)
    tried = {(bool(c.host_bytes), bool(c.disk_bytes), c.ssd_admission == "on_evict") for c in trials.outcomes}
    assert tried == {(True, False, False), (False, True, False), (True, True, False), (True, True, True)}


def test_the_same_question_is_tried_in_the_same_order() -> None:
    first, second = Landscape(policy={"lfu": 1.2}), Landscape(policy={"lfu": 1.2})
    for landscape in (first, second):
        found(landscape, small_space(), Objective(), 25)
    assert first.asked == second.asked
    assert len(first.asked) <= 25


@pytest.mark.parametrize("room_gib", [(96, 1024), (64, 3000)])
def test_more_room_is_never_worse(room_gib: tuple[int, int]) -> None:
    more = Budget(host_bytes=room_gib[0] * GIB, disk_bytes=room_gib[1] * GIB)
    landscape = Landscape(half_bytes=400 * GIB)
    values = []
    for budget in (BUDGET, more):
        choice, trials = found(landscape, space_of(budget, distinct_bytes=0, span_s=7200), Objective(), 60)
        values.append(trials.outcomes[choice].times_s["ttft_mean"])
    assert values[1] <= values[0] * (1 + TIE)


def test_of_what_ties_the_one_that_takes_least_is_chosen() -> None:
    landscape = Landscape(half_bytes=1 * GIB)  # a few GiB hold everything
    choice, _ = found(landscape, small_space(Budget(host_bytes=256 * GIB, disk_bytes=1024 * GIB)), Objective(), 40)
    assert choice.host_bytes == 0 or choice.host_bytes <= 32 * GIB
    assert choice.disk_bytes == 0 or choice.host_bytes == 0


def test_what_meets_the_slo_beats_what_is_cheaper_and_does_not() -> None:
    landscape = Landscape(half_bytes=256 * GIB)
    objective = Objective(slo=Slo(limits_s={"ttft_p99": 6.5}), minimise="ttft_p50")
    choice, trials = found(landscape, small_space(), objective, 40)
    assert trials.outcomes[choice].times_s["ttft_p99"] <= 6.5


def test_a_write_limit_is_kept_to() -> None:
    limit = 2000 * GIB
    budget = replace(BUDGET, disk_writes_per_day=limit)
    objective = Objective(disk_writes_per_day=limit)
    choice, trials = found(
        Landscape(half_bytes=512 * GIB), space_of(budget, distinct_bytes=0, span_s=7200), objective, 40
    )
    assert trials.outcomes[choice].disk_written_bytes_per_day <= limit * (1 + TIE)


def test_the_grid_names_each_configuration_once() -> None:
    candidates = small_space().candidates()
    assert len(set(candidates)) == len(candidates) == small_space().size
    assert all(candidate.is_possible for candidate in candidates)
    assert not [c for c in candidates if not c.disk_bytes and c.ssd_admission != "through"]


def test_alternatives_differ_in_one_setting() -> None:
    space = small_space()
    start = Candidate(host_bytes=32 * GIB, disk_bytes=512 * GIB)
    for dimension in DIMENSIONS:
        for other in space.alternatives(start, dimension):
            changed = {name for name in DIMENSIONS if getattr(other, name) != getattr(start, name)}
            assert dimension in changed
            assert changed == {dimension} or not other.disk_bytes or not other.host_bytes


def test_flexkv_is_offered_only_what_it_can_be_told() -> None:
    space = space_of(BUDGET, distinct_bytes=1e14, span_s=7200, of_flexkv=True)
    assert space.size == len(space.candidates())
    for candidate in space.candidates():
        assert candidate.host_bytes > 0
        assert not candidate.disk_bytes or candidate.disk_bytes > candidate.host_bytes
        assert candidate.ssd_admission == "through"
        assert not candidate.disk_bytes or candidate.ssd_eviction_policy == candidate.eviction_policy


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to search"):
        found(Landscape(), Space(host_bytes=(0,), disk_bytes=(0,)), Objective(), 10)


def test_write_budgets_are_tried_where_the_trace_can_spend_them() -> None:
    long, short = (space_of(BUDGET, distinct_bytes=1e12, span_s=span_s) for span_s in (7200, 600))
    assert len(long.ssd_write_budget_per_day) == 3
    assert short.ssd_write_budget_per_day == [None]


def test_what_only_two_tiers_together_can_do_is_found_from_one_tier() -> None:
    class Together(Landscape):
        """A disk alone is better than both tiers, unless the disk takes what leaves host memory."""

        def evaluate(self, candidate: Candidate) -> Outcome:
            outcome = super().evaluate(candidate)
            both = candidate.host_bytes > 0 and candidate.disk_bytes > 0
            factor = 0.8 if both and candidate.ssd_admission == "on_evict" else 1.05 if candidate.host_bytes else 1.0
            return replace(outcome, times_s={name: value * factor for name, value in outcome.times_s.items()})

    space = replace(small_space(), host_bytes=(0, 32 * GIB, 64 * GIB))
    choice, _ = found(Together(half_bytes=256 * GIB, disk_worth=1.0), space, Objective(), 40)
    assert choice.ssd_admission == "on_evict"


def test_no_candidate_has_a_tier_without_room_for_a_block() -> None:
    token_bytes = GIB // 100
    space = space_of(Budget(host_bytes=GIB, disk_bytes=3 * GIB), distinct_bytes=0, span_s=60, token_bytes=token_bytes)
    candidates = space.candidates()
    assert {candidate.tokens_per_block for candidate in candidates} == {16, 32, 64, 128}
    assert all(size == 0 or size >= each.tokens_per_block * token_bytes
               for each in candidates for size in (each.host_bytes, each.disk_bytes))  # fmt: skip
    assert len(candidates) == space.size
