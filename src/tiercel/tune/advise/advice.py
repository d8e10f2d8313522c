"""From a question to advice: search, compare, explain.

Question + Oracle -> search on the screen -> finalists on the whole trace -> the choice
  -> reasons, the next best, what more room would buy, rules of thumb, and whether a cache is worth it at all
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tiercel.config import ModelConfig
from tiercel.tune.advise.asking import Budget
from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.moving import TransferChoice, choose_transfer
from tiercel.tune.advise.objective import Objective, Tried
from tiercel.tune.advise.oracle import Oracle
from tiercel.tune.advise.outcome import Cost, Outcome, cost_of
from tiercel.tune.advise.reasons import Reason, Reasoner, against, next_best
from tiercel.tune.advise.rules import Rule, rules_of
from tiercel.tune.advise.search import Trials, search
from tiercel.tune.advise.space import Space
from tiercel.tune.advise.wording import percent
from tiercel.tune.advise.worth import Worth, judge
from tiercel.tune.machine import Machine

FINALISTS = 5
"""Candidates that are tried on the whole trace where the search ran on a part of it."""

_RULES_FOLLOWED_MAX = 3
"""How many rules of thumb may follow one another, each for the choice that the one before it made."""

_STEP = 0.125
"""By how much of its capacity a tier is enlarged to see what more of it buys."""
_GIB = float(1 << 30)

Progress = Callable[[str, int, int], None]
"""Told (what is being done, how much of it is done, of how much)."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be advised.

    Attributes:
        mean_prompt_tokens: of the trace.
        evaluations_max: simulations of the search; finalists, rules of thumb and larger tiers come on top.
    """

    model: ModelConfig
    machine: Machine
    budget: Budget
    objective: Objective
    space: Space
    mean_prompt_tokens: float
    evaluations_max: int = 40

    def allows(self, candidate: Candidate) -> bool:
        """Whether a candidate that the search has not come upon may be chosen."""
        budget = self.budget
        fits = candidate.host_bytes <= budget.host_bytes and candidate.disk_bytes <= budget.disk_bytes
        return fits and candidate in self.space and candidate == self.space.settled(candidate)


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A candidate and what it came to; `value` is what was to be small, `excess` by how much a limit is exceeded."""

    candidate: Candidate
    outcome: Outcome
    value: float
    excess: float


@dataclass(frozen=True, kw_only=True)
class Margin:
    """What more of a tier buys, for each GiB of the `step_bytes` behind the choice.

    Attributes:
        hit_rate: share of all prompts' tokens that need no computing on top.
        ttft_mean_s: seconds by which the mean time to first token changes.
    """

    tier: str
    step_bytes: int
    hit_rate: float
    ttft_mean_s: float


@dataclass(frozen=True, kw_only=True)
class RuleVerdict:
    """A rule of thumb: what following it comes to, or what is said of it where the simulator cannot judge."""

    rule: str
    weighed: Weighed | None = None
    change: float = 0.0
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to set, and why.

    Attributes:
        meets_slo: whether the choice is within every limit; if not, it is the closest that was found.
        closest: where no limit can be met, the sentence that says what comes closest.
        next_best: the sentence about the second choice; "" if nothing else was tried.
        without: what the engine comes to alone.
        cost, cost_without: of a million tokens; None without prices.
        sharing: share of all prompts' tokens that an earlier prompt shared.
        evaluations: simulations of the search. space_size: different candidates that a full grid has.
    """

    choice: Weighed
    transfer: TransferChoice
    meets_slo: bool
    closest: str
    worth: Worth
    reasons: list[Reason]
    second: Weighed | None
    next_best: str
    margins: list[Margin]
    rules: list[RuleVerdict]
    without: Outcome
    cost: Cost | None
    cost_without: Cost | None
    sharing: float
    evaluations: int
    space_size: int
    tried: list[Weighed] = field(default_factory=list)


def advise(question: Question, oracle: Oracle, progress: Progress = lambda what, done, total: None) -> Advice:
    """Search for the best configuration and explain it.

    Raises:
        ValueError: the space is empty.
    """
    objective = question.objective
    trials = Trials(
        evaluate=oracle.screen,
        limit=question.evaluations_max,
        on_trial=lambda count: progress("search", count, question.evaluations_max),
    )
    search(question.space, trials, objective, oracle.forecast)
    tried = trials.outcomes
    if oracle.is_screening:
        tried = _finals(oracle, objective, tried, progress)
    tried, rules, followed = _with_rules(question, oracle, tried, progress)
    choice = objective.choose(tried)
    chosen, without = tried[choice], oracle.without()
    weigh = _Weigh(objective)
    transfer = choose_transfer(
        question.machine, question.model, choice.tokens_per_block, has_disk=choice.disk_bytes > 0
    )
    second = next_best(objective, tried, choice)
    excess, prices = objective.excess(chosen), objective.prices
    reasons = Reasoner(question.space, objective, tried, oracle.forecast).reasons(choice)
    return Advice(
        choice=weigh(choice, chosen),
        transfer=transfer,
        meets_slo=not excess,
        closest=_closest(objective, choice, chosen) if excess else "",
        worth=judge(objective, choice, chosen, without, sharing=oracle.sharing, typical=oracle.typical_hit(choice)),
        reasons=[*reasons, *_transfer_reasons(transfer)],
        second=None if second is None else weigh(second, tried[second]),
        next_best="" if second is None else against(objective, tried, choice, second),
        margins=_margins(question, oracle, choice, chosen, progress),
        rules=_verdicts(rules, followed, weigh, weigh(choice, chosen).value),
        without=without,
        cost=None if prices is None else cost_of(choice, chosen, prices, objective.num_gpus),
        cost_without=None if prices is None else cost_of(None, without, prices, objective.num_gpus),
        sharing=oracle.sharing,
        evaluations=len(trials.outcomes),
        space_size=question.space.size,
        tried=[weigh(candidate, tried[candidate]) for candidate in objective.ranked(tried)],
    )


def _transfer_reasons(transfer: TransferChoice) -> list[Reason]:
    return [
        Reason(key=key, value=str(transfer.settings[key]).lower(), sentence=sentence)
        for key, sentence in transfer.reasons.items()
    ]


@dataclass(frozen=True)
class _Weigh:
    objective: Objective

    def __call__(self, candidate: Candidate, outcome: Outcome) -> Weighed:
        return Weighed(
            candidate=candidate,
            outcome=outcome,
            value=self.objective.value(candidate, outcome),
            excess=self.objective.excess(outcome),
        )


def _finals(
    oracle: Oracle, objective: Objective, screened: dict[Candidate, Outcome], progress: Progress
) -> dict[Candidate, Outcome]:
    """Try the best of the screening, the choice first, on the whole trace."""
    finalists = list(dict.fromkeys([objective.choose(screened), *objective.ranked(screened)]))[:FINALISTS]
    whole: dict[Candidate, Outcome] = {}
    for number, candidate in enumerate(finalists):
        progress("finalists", number, len(finalists))
        whole[candidate] = oracle.evaluate(candidate)
    return whole


def _closest(objective: Objective, choice: Candidate, chosen: Outcome) -> str:
    worst = max(objective.slo.limits_s, key=lambda name: chosen.times_s[name] / objective.slo.limits_s[name])
    limit = objective.slo.limits_s[worst]
    return (
        f"no configuration within the budget that was tried meets the SLO: the choice comes closest, with {worst} = "
        f"{chosen.times_s[worst]:.4g} s of {limit:g} s ({percent(objective.excess(chosen))} beyond)"
    )


def _margins(
    question: Question, oracle: Oracle, choice: Candidate, chosen: Outcome, progress: Progress
) -> list[Margin]:
    """Enlarge each tier of the choice, whatever the budget says, and add those of the budget that the choice does without."""
    margins = []
    budget = question.budget
    sizes = {"host": (choice.host_bytes, budget.host_bytes), "disk": (choice.disk_bytes, budget.disk_bytes)}
    tiers = [(name, size) for name, (size, most) in sizes.items() if size or most]
    for number, (tier, size) in enumerate(tiers):
        progress("larger tiers", number, len(tiers))
        step = max(int(size * _STEP), min(size, 1 << 30)) if size else 1 << 30
        candidate = choice.changed(**{f"{tier}_bytes": size + step})
        if not size and candidate not in question.space:  # FlexKV has no disk that is smaller than its host memory
            continue
        larger = oracle.evaluate(candidate)
        gib = step / _GIB
        margins.append(
            Margin(
                tier=tier,
                step_bytes=step,
                hit_rate=(larger.token_hit_rate - chosen.token_hit_rate) / gib,
                ttft_mean_s=(larger.times_s["ttft_mean"] - chosen.times_s["ttft_mean"]) / gib,
            )
        )
    return margins


def _with_rules(
    question: Question, oracle: Oracle, tried: dict[Candidate, Outcome], progress: Progress
) -> tuple[dict[Candidate, Outcome], list[Rule], dict[Candidate, Outcome]]:
    """Apply the rules of thumb to the choice, and follow one that does better; to the choice that this makes they apply anew.

    Returns:
        What was tried, with the rules that may be chosen; the rules for the choice among it; and what these come to.
    """
    for _ in range(_RULES_FOLLOWED_MAX):
        choice = question.objective.choose(tried)
        rules = _rules(question, choice)
        followed = _followed(rules, oracle, tried, progress)
        fitting = {rule: outcome for rule, outcome in followed.items() if question.allows(rule)}
        after = {**tried, **fitting}
        if question.objective.choose(after) == choice:
            return after, rules, followed
        tried = after
    rules = _rules(question, question.objective.choose(tried))
    return tried, rules, _followed(rules, oracle, tried, progress)


def _rules(question: Question, choice: Candidate) -> list[Rule]:
    return rules_of(choice, question.budget, question.machine, question.model, question.mean_prompt_tokens)


def _followed(rules: list[Rule], oracle: Oracle, tried: Tried, progress: Progress) -> dict[Candidate, Outcome]:
    """Evaluate what the rules of thumb come to."""
    candidates = list(dict.fromkeys(rule.candidate for rule in rules if rule.candidate is not None))
    outcomes = {}
    for number, candidate in enumerate(candidates):
        progress("rules of thumb", number, len(candidates))
        outcomes[candidate] = tried[candidate] if candidate in tried else oracle.evaluate(candidate)
    return outcomes


def _verdicts(rules: list[Rule], followed: Tried, weigh: _Weigh, own: float) -> list[RuleVerdict]:
    """Say of each rule what it costs beside the choice, whose value is `own`."""
    verdicts = []
    for rule in rules:
        if rule.candidate is None:
            verdicts.append(RuleVerdict(rule=rule.text, said=rule.judged))
            continue
        weighed = weigh(rule.candidate, followed[rule.candidate])
        verdicts.append(RuleVerdict(rule=rule.text, weighed=weighed, change=weighed.value / own - 1 if own else 0.0))
    return verdicts
