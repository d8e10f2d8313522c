"""Advice as people read it: lines and tables, and the files that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiercel.config import ModelConfig
from tiercel.tune.advise.advice import Advice, Margin, Question, RuleVerdict, Weighed
from tiercel.tune.advise.emit import HEADER, flexkv_file, settings_file
from tiercel.tune.advise.objective import Objective
from tiercel.tune.advise.outcome import Cost, Outcome
from tiercel.tune.advise.wording import candidate_text, change, percent, seconds, signed_percent, size

COLUMNS = ("configuration", "ttft mean", "ttft p99", "tokens held", "host", "disk", "written a day")
"""Of a table of candidates."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """The texts of the files that advice is written to; `flexkv` is None where it was not asked for."""

    settings: str
    flexkv: str | None


def files_of(advice: Advice, question: Question, trace: str, directories: Sequence[str]) -> Files:
    """Return the settings file, and FlexKV's where the space was made for it."""
    candidate = advice.choice.candidate
    settings = {**candidate.settings(directories), **advice.transfer.settings}
    reasons = {reason.key: f"{reason.sentence}." for reason in advice.reasons}
    header = [
        f"{HEADER[2:]} for the trace {trace} within {budget_text(question)}.",
        *(f"{line}." for line in verdict_lines(advice, question.objective)),
    ]
    return Files(
        settings=settings_file(settings, reasons, model=question.model, header=header),
        flexkv=flexkv_file(settings, reasons, candidate, header) if question.space.of_flexkv else None,
    )


def budget_text(question: Question) -> str:
    """Return the budget in words."""
    budget = question.budget
    text = f"{size(budget.host_bytes)} of host memory and {size(budget.disk_bytes)} of disk"
    return f"{text}, {size(budget.disk_writes_per_day)} written a day" if budget.disk_writes_per_day else text


def verdict_lines(advice: Advice, objective: Objective) -> list[str]:
    """Return whether it is worth it, whether limits are met, and what it costs."""
    lines = ["a cache is worth it" if advice.worth.is_worth_it else "a cache is NOT worth it on this trace"]
    lines[0] += f": {advice.worth.reasons[0]}"
    lines += advice.worth.reasons[1:]
    if objective.slo.limits_s:
        lines.append(f"the SLO is met ({objective.slo})" if advice.meets_slo else advice.closest)
    if advice.cost is not None and advice.cost_without is not None:
        lines.append(
            f"a million tokens cost {cost_text(advice.cost)} with the cache and {cost_text(advice.cost_without)} without "
            f"({change(advice.cost.total, advice.cost_without.total)}); only GPU time of prefill is counted, decoding is the same"
        )
    return lines


def cost_text(cost: Cost) -> str:
    """Return a cost and its parts."""
    return f"{cost.total:.4g} (GPU {cost.gpu:.4g}, memory and disk {cost.storage:.4g})"


def candidate_row(weighed: Weighed, name: str = "") -> list[str]:
    """Return a table's row, in the order of `COLUMNS`."""
    return [name or candidate_text(weighed.candidate), *outcome_cells(weighed.outcome)]


def outcome_cells(outcome: Outcome) -> list[str]:
    """Return the cells of a table's row behind the name, in the order of `COLUMNS`."""
    return [
        seconds(outcome.times_s["ttft_mean"]),
        seconds(outcome.times_s["ttft_p99"]),
        percent(outcome.token_hit_rate),
        percent(outcome.host_hit_rate),
        percent(outcome.disk_hit_rate),
        size(int(outcome.disk_written_bytes_per_day)),
    ]


def rule_row(verdict: RuleVerdict) -> list[str]:
    """Return a rule's row: the rule, what it costs, and what it comes to."""
    if verdict.weighed is None:
        return [verdict.rule, "-", "", "", "", verdict.said]
    outcome = verdict.weighed.outcome
    return [
        verdict.rule,
        signed_percent(verdict.change),
        seconds(outcome.times_s["ttft_mean"]),
        seconds(outcome.times_s["ttft_p99"]),
        percent(outcome.token_hit_rate),
        candidate_text(verdict.weighed.candidate),
    ]


RULE_COLUMNS = ("rule of thumb", "costs", "ttft mean", "ttft p99", "tokens held", "which is")


def margin_line(margin: Margin) -> str:
    """Return what more of a tier buys, in a sentence."""
    return (
        f"one more GiB of {margin.tier} buys {margin.hit_rate * 100:+.3f} points of tokens held and "
        f"{margin.ttft_mean_s * 1e3:+.3g} ms of mean TTFT (the mean of the next {size(margin.step_bytes)})"
    )


def model_text(model: ModelConfig) -> str:
    """Return what a model's KV cache takes."""
    return f"{model.model_id}: {size(model.token_size_in_bytes)} a token"
