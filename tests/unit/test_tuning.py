"""When auto-tuning tries, keeps and undoes a change: scripted counts, no cache."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.tuning_samples import LIMITS, Run, counts, noisy, plus, settings
from tiercel.control import Admission, Tuned
from tiercel.control.tuning import Counts, Knob, Limits, start
from tiercel.tiers.base import TierName

THROUGH, SECOND, ON_EVICT = Admission.THROUGH, Admission.ON_SECOND_HIT, Admission.ON_EVICT
DAY_S = 86400.0
DAY = round(DAY_S / LIMITS.window_s)


def flood(tuned: Tuned) -> Counts:
    """One-shot prompts: what is written is not read back, and is not missed."""
    return counts(written=0.6 if tuned.admission is THROUGH else 0.05, read=0.05)


def late_reuse(tuned: Tuned) -> Counts:
    """Much is written for what is read back, but what is read back is lost with it."""
    return counts(written=0.6, read=0.1) if tuned.admission is THROUGH else counts(hits=0.4, written=0.05, read=0.02)


def test_a_change_that_saves_writes_and_costs_no_hits_is_kept() -> None:
    run = Run(flood).windows(20)
    assert run.actions == ["tried", "kept"]
    assert run.admission is SECOND
    (tried_s, tried), (kept_s, kept) = run.changes
    assert (tried.knob, tried.before, tried.after) == (Knob.ADMISSION, "through", "on_second_hit")
    assert "12.0 blocks per block read back" in tried.reason
    assert "0.60 before, 0.05 after" in kept.reason
    assert kept_s - tried_s == (1 + LIMITS.num_windows) * LIMITS.window_s, "a window to settle, and as many as before"


def test_a_change_that_costs_hits_is_undone_and_the_pause_doubles_up_to_its_bound() -> None:
    run = Run(late_reuse).windows(20 * DAY)
    assert run.admission is THROUGH
    assert set(run.actions[::2]) == {"tried"}
    assert set(run.actions[1::2]) == {"undone"}
    tried = [at for at, change in run.changes if change.action.value == "tried"]
    undone = [at for at, change in run.changes if change.action.value == "undone"]
    pauses = [later - earlier for later, earlier in zip(tried[1:], undone, strict=False)]
    assert pauses[:4] == [LIMITS.rest_s * 2**number for number in range(1, 5)]
    assert max(pauses) == LIMITS.rest_s_max
    assert len(tried) < 30
    undoing = run.changes[1][1]
    assert (undoing.before, undoing.after) == ("on_second_hit", "through")
    assert "hit share 50.0% before, 40.0% after" in undoing.reason
    assert "not tried again for 60 min" in undoing.reason


def test_a_change_that_helps_ends_the_growth_of_the_pause() -> None:
    run = Run(late_reuse).windows(DAY)
    run.traffic = flood
    run.windows(DAY)
    assert run.actions[-1] == "kept"
    # The traffic turns: what is read back is more than what is written, and the rest is missed.
    run.traffic = lambda tuned: counts(hits=0.6 if tuned.admission is THROUGH else 0.3, written=0.1, read=0.2)
    run.windows(DAY)
    run.traffic = late_reuse
    undone = len(run.changes)
    run.windows(DAY)
    (first, _), (second, _) = [entry for entry in run.changes[undone:] if entry[1].action.value == "undone"][:2]
    assert second - first == 2 * LIMITS.rest_s + (1 + LIMITS.num_windows) * LIMITS.window_s


def test_noise_alone_changes_nothing_in_ten_thousand_looks() -> None:
    dice = random.Random(chosen_seed())

    def traffic(_: Tuned) -> Counts:
        return counts(
            hits=noisy(dice, 0.5, 0.1),
            written=noisy(dice, 0.3, 0.05),
            read=noisy(dice, 0.2, 0.02),
            age_s=50 + 100 * dice.random(),
        )

    assert Run(traffic).windows(10_000).changes == []


def test_noise_about_every_threshold_does_not_flap_in_ten_thousand_looks() -> None:
    """Each window asks for a change, and none makes a difference: what was tried is undone, ever more seldom."""
    dice = random.Random(chosen_seed())

    def traffic(_: Tuned) -> Counts:
        return counts(
            hits=noisy(dice, 0.5, 0.1),
            written=noisy(dice, 0.5, 0.05),
            read=noisy(dice, 0.08, 0.01),
            cramped=noisy(dice, 0.3, 0.05),
        )

    run = Run(traffic).windows(10_000)
    kept = run.actions.count("kept")
    assert kept <= 2, "chance alone may pass the margin, seldom"
    days = run.now_s / DAY_S
    assert len(run.changes) <= 2 * len(run.state.knobs) * (days + 8 * (1 + kept))


def test_hits_may_not_fall_by_more_than_five_points_however_large_the_noise() -> None:
    number = 0

    def traffic(tuned: Tuned) -> Counts:
        nonlocal number
        number += 1
        through = tuned.admission is THROUGH
        swing = 0.2 if number % 2 else -0.2
        return counts(hits=(0.5 if through else 0.43) + swing, written=0.6 if through else 0.05, read=0.05)

    assert Run(traffic).windows(10).actions == ["tried", "undone"]


@pytest.mark.parametrize(
    ("why", "window"),
    [
        ("the disk has room", counts(written=0.6, read=0.05, evicts=False)),
        ("little is written", counts(written=0.04, read=0.001)),
        ("much is read back", counts(written=0.6, read=0.16)),
    ],
)
def test_admission_stays_through_where(why: str, window: Counts) -> None:
    assert Run(lambda _: window).windows(DAY).changes == [], why


@pytest.mark.parametrize(
    ("why", "window"),
    [
        ("nothing is read back", counts(written=0.0, read=0.0)),
        ("as much is written as read back", counts(written=0.2, read=0.2)),
        ("there is little to gain", counts(hits=0.96, written=0.01, read=0.5)),
        ("the disk refuses writes", replace(counts(written=0.1, read=0.2), refused=3)),
    ],
)
def test_admission_stays_on_second_hit_where(why: str, window: Counts) -> None:
    assert Run(lambda _: window, ssd_admission=SECOND).windows(DAY).changes == [], why


def test_admission_goes_to_through_and_stays_if_hits_rise() -> None:
    run = Run(
        lambda tuned: counts(hits=0.6 if tuned.admission is THROUGH else 0.4, written=0.1, read=0.2),
        ssd_admission=SECOND,
    ).windows(DAY)
    assert run.actions == ["tried", "kept"]
    assert run.admission is THROUGH


@pytest.mark.parametrize(("swing", "outcome"), [(0.002, "kept"), (0.1, "undone")])
def test_hits_that_rise_count_only_as_far_as_they_rise_by_more_than_the_noise(swing: float, outcome: str) -> None:
    number = 0

    def traffic(tuned: Tuned) -> Counts:
        nonlocal number
        number += 1
        hits = 0.43 if tuned.admission is THROUGH else 0.4
        return counts(hits=hits + (swing if number % 2 else -swing), written=0.1, read=0.2)

    assert Run(traffic, ssd_admission=SECOND).windows(10).actions == ["tried", outcome]


def test_admission_goes_back_to_second_hit_if_the_disk_then_refuses_writes() -> None:
    def traffic(tuned: Tuned) -> Counts:
        if tuned.admission is SECOND:
            return counts(hits=0.4, written=0.1, read=0.2)
        return replace(counts(hits=0.6, written=0.3, read=0.3), refused=5)

    run = Run(traffic, ssd_admission=SECOND).windows(12)
    assert run.actions == ["tried", "undone"]
    assert run.admission is SECOND


def test_the_host_watermark_falls_step_by_step_while_stores_find_no_room() -> None:
    def traffic(tuned: Tuned) -> Counts:
        return counts(cramped={0.0: 0.8, 0.02: 0.4, 0.05: 0.05}[tuned.host_room], age_s=100 - 100 * tuned.host_room)

    run = Run(traffic).windows(DAY)
    assert run.actions == ["tried", "kept"] * 2
    assert [change.after for _, change in run.changes] == ["0.99", "0.99", "0.975", "0.975"]
    assert run.state.tuned == Tuned(admission=THROUGH, host_room=0.05)


@pytest.mark.parametrize(
    ("why", "after"),
    [
        ("stores find no more room than before", counts(cramped=0.7)),
        ("blocks leave much earlier", counts(cramped=0.1, age_s=60)),
        ("hits are lost", counts(cramped=0.1, hits=0.45)),
    ],
)
def test_the_host_watermark_goes_back_if(why: str, after: Counts) -> None:
    run = Run(lambda tuned: after if tuned.host_room else counts(cramped=0.8)).windows(12)
    assert run.actions == ["tried", "undone"], why
    assert run.state.tuned.host_room == 0


def test_room_ahead_of_need_is_given_back_when_nothing_is_evicted() -> None:
    run = Run(lambda tuned: counts(cramped=0.0 if tuned.host_room else 0.8)).windows(12)
    assert run.state.tuned.host_room == 0.02
    run.traffic = lambda _: counts(evicts=False)
    run.windows(DAY)
    assert run.actions == ["tried", "kept"] * 2
    assert run.state.tuned.host_room == 0


def test_one_change_is_open_at_a_time() -> None:
    def traffic(tuned: Tuned) -> Counts:
        return replace(flood(tuned), stores=1000, cramped=800 if tuned.host_room == 0 else 0)

    run = Run(traffic).windows(DAY)
    assert run.actions == ["tried", "kept"] * 2
    assert [change.knob for _, change in run.changes] == [Knob.ADMISSION] * 2 + [Knob.HOST_WATERMARK] * 2


def test_a_window_lasts_until_both_its_lookups_and_its_time_have_passed() -> None:
    idle = Run(lambda tuned: replace(flood(tuned), lookups=1)).windows(500)
    assert idle.changes == []
    assert idle.state.windows == ()
    hasty = Run(flood, replace(LIMITS, window_s=0.0)).windows(100)
    assert hasty.actions == ["tried", "kept"]
    hasty = Run(flood)
    for _ in range(1000):
        hasty.total = plus(hasty.total, flood(hasty.state.tuned))
        hasty.now_s += 0.05
        hasty.look()
    assert hasty.changes == [], "50 seconds are less than a window"


def test_a_reset_of_the_cache_undoes_what_cannot_be_judged_any_more() -> None:
    run = Run(flood).windows(5)
    assert run.actions == ["tried"]
    run.total = replace(run.total, resets=1)
    run.look()
    assert run.actions == ["tried", "undone"]
    assert "reset" in run.changes[-1][1].reason
    assert run.admission is THROUGH
    assert run.windows(3).actions == ["tried", "undone"], "what was seen before the reset counts no more"


def test_a_cache_that_is_reset_again_and_again_is_not_changed_to_and_fro() -> None:
    run = Run(flood)
    for number in range(100):
        run.windows(LIMITS.num_windows + 3)  # enough to try something, too little to judge it
        run.total = replace(run.total, resets=number + 1)
        run.look()
    tried = [at for at, change in run.changes if change.action.value == "tried"]
    assert len(tried) > 1
    assert min(later - earlier for earlier, later in pairwise(tried)) >= LIMITS.rest_s
    assert "not tried again for 30 min" in run.changes[1][1].reason


def test_on_evict_is_never_switched_to_or_from() -> None:
    assert start(settings(ssd_admission=ON_EVICT)).knobs == (Knob.HOST_WATERMARK,)
    assert start(settings(ssd_admission=ON_EVICT, capacities={TierName.DISK: 10})).knobs == ()
    assert start(settings(capacities={TierName.DISK: 10})).knobs == (Knob.ADMISSION,)
    assert Run(flood, ssd_admission=ON_EVICT).windows(DAY).changes == []


def test_the_same_counts_give_the_same_changes() -> None:
    first, second = Run(late_reuse).windows(DAY), Run(late_reuse).windows(DAY)
    assert first.changes == second.changes
    assert first.state == second.state


def test_a_window_without_lookups_stores_or_evictions_is_no_division_by_zero() -> None:
    quiet = Limits(window_lookups=0, window_s=0.0)
    assert Run(lambda _: Counts(), quiet).windows(20).changes == []
