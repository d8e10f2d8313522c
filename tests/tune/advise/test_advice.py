"""The whole advice on landscapes: the sentences have the numbers, rules of thumb are weighed, and no is said where no is due."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.tune.advise.stand_in import GIB, MODEL, Landscape, machine
from tiercel.config import CacheConfig
from tiercel.costs import PrefillCurve
from tiercel.tiers.base import TierName
from tiercel.tune.advise import (
    Advice,
    Budget,
    Candidate,
    Objective,
    Outcome,
    Prices,
    Question,
    Slo,
    advise,
    space_of,
)
from tiercel.tune.advise.moving import choose_transfer
from tiercel.tune.advise.report import margin_line, rule_row, verdict_lines
from tiercel.tune.advise.wording import change, seconds
from tiercel.tune.machine import DiskFigure, Figure, Machine
from tiercel.tune.simulate import EngineFacts, PrefillSource, make_setup

TEN_PROMPTS = 10 * 8192 * MODEL.token_size_in_bytes
BUDGET = Budget(host_bytes=256 * GIB, disk_bytes=2048 * GIB)


def asked(
    landscape: Landscape,
    objective: Objective | None = None,
    *,
    budget: Budget = BUDGET,
    measured: Machine | None = None,
    of_flexkv: bool = False,
) -> tuple[Advice, Question]:
    question = Question(
        model=MODEL,
        machine=measured or machine(),
        budget=budget,
        objective=objective or Objective(),
        space=space_of(budget, distinct_bytes=1e12, span_s=7200, of_flexkv=of_flexkv),
        mean_prompt_tokens=8192,
    )
    return advise(question, landscape), question


def test_each_reason_has_the_numbers_of_what_was_tried_instead() -> None:
    landscape = Landscape(
        half_bytes=400 * GIB, slowness={16: 0.3, 32: 0.2, 128: 0.1}, policy={"2q": 2.0}, disk_worth=0.5
    )
    advice, _ = asked(landscape)
    reasons = {reason.key: reason for reason in advice.reasons}
    mean = seconds(advice.choice.outcome.times_s["ttft_mean"])
    for key in ("num_cpu_blocks", "num_ssd_blocks", "tokens_per_block", "eviction_policy", "ssd_admission"):
        assert mean in reasons[key].sentence, key
    assert "+" in reasons["eviction_policy"].sentence
    assert "lru in host memory" in reasons["eviction_policy"].sentence
    of_lru = [weighed.value for weighed in advice.tried if weighed.candidate.eviction_policy == "lru"]
    assert any(seconds(value) in reasons["eviction_policy"].sentence for value in of_lru)
    assert f"{advice.choice.outcome.host_hit_rate * 100:.1f} %" in reasons["num_cpu_blocks"].sentence


def test_transfers_are_set_by_the_machines_figures() -> None:
    advice, _ = asked(Landscape(half_bytes=400 * GIB))
    assert advice.transfer.settings["use_ce_transfer_h2d"] is False
    assert advice.transfer.settings["transfer_sms_h2d"] == 4
    assert advice.transfer.settings["ssd_cache_iouring_entries"] == 32
    (reason,) = (reason for reason in advice.reasons if reason.key == "transfer_sms_h2d")
    assert "49.0 GB/s with 4 CTAs" in reason.sentence
    assert "50.5 GB/s, with 32 CTAs" in reason.sentence


@pytest.mark.parametrize("tokens", [16, 32, 64, 128])
def test_the_depth_that_is_set_is_read_off_the_figures_that_the_simulator_takes(tokens: int) -> None:
    measured, bandwidths = machine(), {}
    for operation, sizes in (("read", (1 << 20, 4 << 20, 8 << 20)), ("write", (1 << 20, 8 << 20))):
        bandwidths[operation] = [_disk_figure(operation, size, depth) for size in sizes for depth in (1, 8)]
    figures = tuple(bandwidths["read"] + bandwidths["write"])
    directories = (msgspec.structs.replace(measured.directories[0], figures=figures),)
    measured = msgspec.structs.replace(measured, directories=directories)
    model = replace(MODEL, num_layers=36)  # 2.25 MiB to 18 MiB a block: between two sizes, and in several requests
    candidate = Candidate(host_bytes=0, disk_bytes=64 * GIB, tokens_per_block=tokens)
    chosen = choose_transfer(measured, model, tokens, has_disk=True).settings
    engine = EngineFacts(
        prefill=PrefillSource(curve=PrefillCurve(fixed_s=0.0, token_s=1e-4, token_pair_s=0.0), told="")
    )
    directory = [measured.directories[0].path]
    links = [
        make_setup(CacheConfig(**candidate.settings(directory), **extra), model, measured, engine).reads[TierName.DISK]
        for extra in (chosen, {})
    ]
    assert links[0].bytes_per_s >= 0.97 * links[1].bytes_per_s


def _disk_figure(operation: Any, block_bytes: int, depth: int) -> DiskFigure:
    """Of blocks of 4 MiB one at a time is as fast as eight; of the others eight are four times as fast."""
    rate = (4e9 if block_bytes == 4 << 20 else 1e9 * (1 + 3 * (depth > 1))) + block_bytes
    figure = Figure(value=rate, low=rate, high=rate, repeats=5)
    return DiskFigure(
        operation=operation,
        block_bytes=block_bytes,
        depth=depth,
        bytes_per_s=figure,
        latency_p50_s=block_bytes / rate * 2,
        latency_p99_s=block_bytes / rate * 4,
    )


def test_what_no_figure_judges_is_named() -> None:
    advice, _ = asked(Landscape(half_bytes=400 * GIB), measured=machine(with_gpu=False))
    assert "transfer_sms_h2d" in advice.transfer.unjudged
    said = {verdict.rule: verdict.said for verdict in advice.rules}
    assert said["16 CTAs on an H100"].startswith("unjudged")
    assert said["1024 disk requests in flight"] == "unjudged: machine.json has up to 512"


def test_rules_of_thumb_are_weighed_beside_the_choice() -> None:
    advice, _ = asked(Landscape(half_bytes=400 * GIB, slowness={16: 0.3, 32: 0.2, 128: 0.1}))
    verdicts = {verdict.rule: verdict for verdict in advice.rules}
    assert verdicts["64 tokens a block"].change == 0
    sixteen = verdicts["16 tokens a block"]
    assert sixteen.weighed is not None
    assert sixteen.change == pytest.approx(sixteen.weighed.value / advice.choice.value - 1)
    assert sixteen.change > 0.1
    assert rule_row(sixteen)[1] == f"{sixteen.change * 100:+.1f} %"
    tenfold = verdicts["disk 10 times host memory, as large as the budget allows"].weighed
    assert tenfold is not None
    assert tenfold.candidate.disk_bytes // 10 <= tenfold.candidate.host_bytes <= BUDGET.host_bytes
    assert verdicts["512 disk requests in flight"].said.startswith("6.00 GB/s")
    assert verdicts["8 CTAs on an A100"].said == "does not apply to NVIDIA H100 80GB HBM3"


def test_more_room_is_priced_by_the_gib() -> None:
    advice, _ = asked(Landscape(half_bytes=400 * GIB))
    for margin in advice.margins:
        assert margin.hit_rate >= 0
        assert margin.ttft_mean_s < 0
        assert "one more GiB of" in margin_line(margin)


def test_the_next_best_is_another_one_and_no_better() -> None:
    advice, _ = asked(Landscape(half_bytes=400 * GIB))
    assert advice.second is not None
    assert advice.second.candidate != advice.choice.candidate
    assert advice.second.value >= advice.choice.value * 0.99
    assert advice.evaluations <= 40 < advice.space_size


def test_an_slo_that_nothing_meets_names_what_comes_closest() -> None:
    objective = Objective(slo=Slo(limits_s={"ttft_p99": 0.001}))
    advice, _ = asked(Landscape(), objective)
    assert not advice.meets_slo
    assert "comes closest, with ttft_p99 = " in advice.closest
    assert min(weighed.excess for weighed in advice.tried) == pytest.approx(advice.choice.excess, rel=0.02)


def test_no_sharing_is_said() -> None:
    advice, question = asked(Landscape(sharing=0.002, on_gpu=0.0))
    assert not advice.worth.is_worth_it
    assert "share next to nothing: 0.2 %" in advice.worth.reasons[1]
    assert "NOT worth it" in verdict_lines(advice, question.objective)[0]


def test_a_gpu_that_holds_it_all_is_said() -> None:
    advice, _ = asked(Landscape(sharing=0.4, on_gpu=0.396))
    assert not advice.worth.is_worth_it
    assert "the GPU's own cache suffices: it holds 39.6 %" in advice.worth.reasons[1]


def test_loading_that_is_slower_than_computing_is_said() -> None:
    advice, _ = asked(Landscape(sharing=0.5, half_bytes=1e15, load_s=0.9))
    assert not advice.worth.is_worth_it
    assert any("900 ms from" in reason and "500 ms to compute" in reason for reason in advice.worth.reasons)


def test_too_little_room_is_said() -> None:
    advice, _ = asked(Landscape(half_bytes=1e15))
    assert not advice.worth.is_worth_it
    assert "adds too little" in advice.worth.reasons[1]


def test_a_cache_that_costs_more_than_it_saves_is_not_worth_it() -> None:
    landscape = Landscape(half_bytes=400 * GIB)
    dear = Objective(prices=Prices(gpu_hour=0.01, host_gib_month=100.0, disk_gib_month=100.0))
    cheap = Objective(prices=Prices(gpu_hour=10.0, host_gib_month=0.01, disk_gib_month=0.001))
    (not_worth, question), (worth, _) = asked(landscape, dear), asked(landscape, cheap)
    assert not not_worth.worth.is_worth_it
    assert worth.worth.is_worth_it
    assert not_worth.cost is not None
    assert f"{not_worth.cost.total:.4g} with it" in not_worth.worth.reasons[0]
    assert any("a million tokens cost" in line for line in verdict_lines(not_worth, question.objective))
    assert not_worth.choice.candidate.host_bytes + not_worth.choice.candidate.disk_bytes < BUDGET.host_bytes


def test_costs_are_those_of_gpus_and_of_tiers() -> None:
    prices = Prices(gpu_hour=2.0, host_gib_month=7.3, disk_gib_month=0.73)
    advice, _ = asked(Landscape(half_bytes=400 * GIB), Objective(prices=prices, num_gpus=4))
    assert advice.cost is not None
    assert advice.cost_without is not None
    candidate, outcome = advice.choice.candidate, advice.choice.outcome
    # 10 million tokens in an hour of 730 a month.
    gib = (candidate.host_bytes / GIB * 7.3 + candidate.disk_bytes / GIB * 0.73) / 730 / 10
    assert advice.cost.storage == pytest.approx(gib)
    assert advice.cost.gpu == pytest.approx(outcome.prefill_busy_s / 3600 * 4 * 2.0 / 10)
    assert advice.cost_without.storage == 0


def test_the_search_on_a_stretch_ends_with_finalists_on_the_whole() -> None:
    class Screened(Landscape):
        """Its screen takes 16 tokens a block for the best, which they are not."""

        def screen(self, candidate):  # type: ignore[no-untyped-def]
            """Answer as if 2q were the best by far."""
            outcome = Landscape(policy={"2q": 3.0}, half_bytes=self.half_bytes).evaluate(candidate)
            self.screened = getattr(self, "screened", 0) + 1
            return outcome

    landscape = Screened(half_bytes=400 * GIB, is_screening=True, policy={"2q": 0.5})
    advice, _ = asked(landscape)
    assert len(advice.tried) >= 5
    assert advice.evaluations > 5
    values = [weighed.value for weighed in advice.tried]
    assert advice.choice.value <= min(values) * 1.01


def test_a_rule_of_thumb_that_does_better_is_followed() -> None:
    class Hidden(Landscape):
        """What holds ten mean prompts is best by far, which no capacity of the search does."""

        def screen(self, candidate: Candidate) -> Outcome:
            """Answer as the landscape does, and a tenth of it in that one place."""
            outcome = super().evaluate(candidate)
            if candidate.host_bytes != TEN_PROMPTS:
                return outcome
            return replace(outcome, times_s={name: value / 10 for name, value in outcome.times_s.items()})

        evaluate = screen

    advice, _ = asked(Hidden(half_bytes=400 * GIB))
    choice = advice.choice.candidate
    assert choice.host_bytes == TEN_PROMPTS
    assert min(verdict.change for verdict in advice.rules if verdict.weighed) >= -0.01
    followed_alone = [each.weighed for each in advice.rules if each.weighed and each.rule.startswith("evict ")]
    assert [weighed.candidate for weighed in followed_alone] == [
        choice.changed(evict_ratio=0.05),
        choice.changed(evict_ratio=0.1),
    ]


def test_a_tier_that_the_choice_does_without_is_priced_too() -> None:
    advice, _ = asked(Landscape(sharing=0.0))
    without = [tier for tier in ("host", "disk") if not getattr(advice.choice.candidate, f"{tier}_bytes")]
    assert without
    assert {margin.tier: margin.step_bytes for margin in advice.margins if margin.tier in without} == dict.fromkeys(
        without, GIB
    )


def test_a_next_best_that_only_takes_more_is_called_a_tie() -> None:
    advice, _ = asked(Landscape(sharing=0.0))
    assert advice.next_best.endswith("a tie that takes more")


def test_what_rounds_to_no_difference_has_no_sign() -> None:
    assert change(0.9999, 1.0) == change(1.0001, 1.0) == "+0.0 %"
    assert change(0.999, 1.0) == "-0.1 %"
