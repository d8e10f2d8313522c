"""The search: from what the LRU curve says to a few starts, from each setting by setting to where nothing improves.

An evaluation is dear (a simulation), a forecast cheap (the curve). Forecasts rank capacities and block sizes and spare the
evaluation of those that are far behind; policies, admission and write budgets are only ever judged by evaluation.
Nothing is drawn: the same inputs give the same trials in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.objective import TIE, Objective
from tiercel.tune.advise.outcome import Outcome
from tiercel.tune.advise.space import Space

Evaluate = Callable[[Candidate], Outcome]
"""Says what a candidate comes to; the same for the same candidate."""

Structure = tuple[bool, bool, bool]
"""Whether there is a host tier, whether there is a disk tier, and whether the disk takes only what the host tier loses: then they
hold different blocks, and capacities that are right for the one are not for the other."""

ORDER = (
    "tokens_per_block",
    "host_bytes",
    "disk_bytes",
    "ssd_admission",
    "eviction_policy",
    "ssd_eviction_policy",
    "ssd_write_budget_per_day",
    "evict_ratio",
)
"""Settings in the order in which they are tried, those that matter most first."""

_FORECAST_MARGIN = 0.1
"""A capacity or block size that is forecast to be worse by more than this is not evaluated."""
CURVE_DIMENSIONS = frozenset({"tokens_per_block", "host_bytes", "disk_bytes"})
"""Settings that the LRU curve tells apart."""
_SHARE_DOWN = 0.15
"""Share of the evaluations that is kept for finding what takes less."""
_LEAST = ("host_bytes", "disk_bytes", "ssd_write_budget_per_day")


@dataclass(kw_only=True)
class Trials:
    """Outcomes so far.

    Attributes:
        limit: most evaluations.
        on_trial: is told the number of evaluations after each.
    """

    evaluate: Evaluate
    limit: int
    on_trial: Callable[[int], None] = lambda count: None
    outcomes: dict[Candidate, Outcome] = field(default_factory=dict)

    @property
    def is_spent(self) -> bool:
        return len(self.outcomes) >= self.limit

    def attempt(self, candidate: Candidate) -> bool:
        """Evaluate a candidate unless it was before; False when none is left to be evaluated."""
        if candidate in self.outcomes:
            return True
        if self.is_spent:
            return False
        self.outcomes[candidate] = self.evaluate(candidate)
        self.on_trial(len(self.outcomes))
        return True


def search(space: Space, trials: Trials, objective: Objective, forecast: Evaluate) -> Candidate:
    """Find the best candidate that the trials allow for; the outcomes stay in `trials`.

    Raises:
        ValueError: the space is empty, or no trial is allowed.
    """
    forecasts = {candidate: forecast(candidate) for candidate in space.plain()}
    if not forecasts or trials.limit < 1:
        raise ValueError("there is nothing to search: no candidate, or no evaluation allowed")
    climb = _Climb(space, trials, objective, forecast, forecasts)
    for start in _starts(space, forecasts, objective):
        trials.attempt(start)
    climb.everywhere()
    climb.down()
    return objective.choose(trials.outcomes)


def _starts(space: Space, forecasts: dict[Candidate, Outcome], objective: Objective) -> Sequence[Candidate]:
    """The forecast's choice, its best of each other structure, and all that the budget allows: however far behind they are
    forecast to be, as a forecast may be wrong about a whole tier. It does not tell demotion from writing at once, so its best
    of two tiers is tried both ways."""
    ranked = [objective.choose(forecasts), *objective.ranked(forecasts)]
    by_structure: dict[Structure, Candidate] = {}
    for candidate in ranked:
        by_structure.setdefault(_structure_of(candidate), candidate)
    for candidate in list(by_structure.values()):
        for other in space.alternatives(candidate, "ssd_admission"):
            if other.ssd_admission == "on_evict":
                by_structure.setdefault(_structure_of(other), other)
    most = max((candidate.host_bytes, candidate.disk_bytes) for candidate in forecasts)
    largest = next(candidate for candidate in ranked if (candidate.host_bytes, candidate.disk_bytes) == most)
    return list(dict.fromkeys([*by_structure.values(), largest]))


def _is_far_behind(
    objective: Objective, forecasts: dict[Candidate, Outcome], candidate: Candidate, best: Candidate
) -> bool:
    mine, theirs = (objective.key(each, forecasts[each]) for each in (candidate, best))
    if mine[1] or theirs[1]:  # beyond a limit: what counts is by how much
        return mine[1] > theirs[1] + _FORECAST_MARGIN
    return mine[2] > theirs[2] * (1 + _FORECAST_MARGIN)


class _Climb:
    """Moves from candidate to candidate, one setting at a time."""

    def __init__(
        self,
        space: Space,
        trials: Trials,
        objective: Objective,
        forecast: Evaluate,
        forecasts: dict[Candidate, Outcome],
    ) -> None:
        self._space, self._trials, self._objective = space, trials, objective
        self._forecast, self._forecasts = forecast, forecasts

    def _best(self, structure: Structure | None) -> Candidate:
        ranked = self._objective.ranked(self._trials.outcomes)
        return next(candidate for candidate in ranked if structure in (None, _structure_of(candidate)))

    def everywhere(self) -> None:
        """Climb from the best candidate, and with what evaluations are left from the best of each other structure: settings
        that only it has may make it the better one."""
        self.up(None)
        ranked = self._objective.ranked(self._trials.outcomes)
        for structure in dict.fromkeys(map(_structure_of, ranked)):
            self.up(structure)
        self.up(None)

    def up(self, structure: Structure | None) -> None:
        """Try every setting in turn around the best so far, of one structure or of all, until a whole round has found nothing
        better."""
        enough = int(self._trials.limit * (1 - _SHARE_DOWN))
        while len(self._trials.outcomes) < enough:
            before = self._best(structure)
            for dimension in ORDER:
                for other in self._promising(self._best(structure), dimension):
                    if len(self._trials.outcomes) < enough:
                        self._trials.attempt(other)
            if not self._is_better(self._best(structure), before):
                return

    def down(self) -> None:
        """Try to take less: a smaller tier, fewer writes, as long as it costs no more than a tie."""
        while not self._trials.is_spent:
            chosen = self._objective.choose(self._trials.outcomes)
            for dimension in _LEAST:
                for other in self._space.alternatives(chosen, dimension):
                    if _takes_less(other, chosen) and not self._is_hopeless(other, chosen):
                        self._trials.attempt(other)
            if self._objective.choose(self._trials.outcomes) == chosen:
                return

    def _promising(self, best: Candidate, dimension: str) -> list[Candidate]:
        others = self._space.alternatives(best, dimension)
        return [other for other in others if dimension not in CURVE_DIMENSIONS or not self._is_hopeless(other, best)]

    def _is_hopeless(self, other: Candidate, best: Candidate) -> bool:
        for candidate in (other, best):
            if candidate not in self._forecasts:
                self._forecasts[candidate] = self._forecast(candidate)
        return _is_far_behind(self._objective, self._forecasts, other, best)

    def _is_better(self, now: Candidate, before: Candidate) -> bool:
        new, old = (self._objective.key(each, self._trials.outcomes[each]) for each in (now, before))
        return new[:2] < old[:2] or (new[:2] == old[:2] and new[2] < old[2] * (1 - TIE / 2))


def _structure_of(candidate: Candidate) -> Structure:
    return candidate.host_bytes > 0, candidate.disk_bytes > 0, candidate.ssd_admission == "on_evict"


def _takes_less(other: Candidate, than: Candidate) -> bool:
    budgets = [
        float("inf") if c.ssd_write_budget_per_day is None else c.ssd_write_budget_per_day for c in (other, than)
    ]
    return other.host_bytes < than.host_bytes or other.disk_bytes < than.disk_bytes or budgets[0] < budgets[1]
