"""Why each setting is as it is: a sentence each, with the numbers of what was tried instead."""

from dataclasses import dataclass

from tiercel.tune.advise.candidate import DIMENSIONS, Candidate
from tiercel.tune.advise.objective import TIE, Objective, Tried
from tiercel.tune.advise.outcome import Outcome
from tiercel.tune.advise.search import CURVE_DIMENSIONS, Evaluate
from tiercel.tune.advise.space import Space
from tiercel.tune.advise.wording import candidate_text, change, percent, seconds, setting

_ALTERNATIVES_MAX = 3
_KEYS = {"host_bytes": "num_cpu_blocks", "disk_bytes": "num_ssd_blocks"}


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One setting of the choice.

    Attributes:
        key: the setting's name in files.
        value: as people read it.
        sentence: why.
    """

    key: str
    value: str
    sentence: str


class Reasoner:
    """Explains a choice by what else was tried, and by the forecast where nothing was."""

    def __init__(self, space: Space, objective: Objective, tried: Tried, forecast: Evaluate) -> None:
        self._space, self._objective, self._tried, self._forecast = space, objective, tried, forecast

    def reasons(self, choice: Candidate) -> list[Reason]:
        """Return a reason for each setting that the choice makes."""
        made = [name for name in DIMENSIONS if self._is_made(choice, name)]
        return [
            Reason(
                key=_KEYS.get(name, name),
                value=setting(name, getattr(choice, name)),
                sentence=self._sentence(choice, name),
            )
            for name in made
        ]

    def told(self, candidate: Candidate, outcome: Outcome) -> str:
        """Return what is to be small, as a value with its unit."""
        value = self._objective.value(candidate, outcome)
        return seconds(value) if self._objective.prices is None else f"{value:.4g}"

    def _is_made(self, choice: Candidate, name: str) -> bool:
        changed = (choice.changed(**{name: other}) for other in self._space.choices(name))
        return name.endswith("_bytes") or any(self._space.settled(other) != choice for other in changed)

    def _sentence(self, choice: Candidate, name: str) -> str:
        outcome = self._tried[choice]
        intro = f"{self._objective.title} {self.told(choice, outcome)}"
        if name.endswith("_bytes") and getattr(choice, name):
            rate = outcome.host_hit_rate if name == "host_bytes" else outcome.disk_hit_rate
            intro = f"gives {percent(rate)} of all prompts' blocks, {intro}"
        if others := self._others_tried(choice, name):
            return f"{intro}; {self._told_others(choice, name, others)}"
        if base := self._nearest_base(choice, name):
            told = self._told_others(base, name, self._others_tried(base, name))
            return f"{intro}; tried with {_differing(base, choice)}, where it gives {self.told(base, self._tried[base])}: {told}"
        forecast = self._forecast_others(choice, name) if name in CURVE_DIMENSIONS else ""
        return f"{intro}; {forecast or 'nothing else was tried'}"

    def _nearest_base(self, choice: Candidate, name: str) -> Candidate | None:
        """The candidate most like the choice, and like it in this setting, of which something else was tried."""
        bases = [base for base in self._tried if getattr(base, name) == getattr(choice, name)]
        bases = [base for base in bases if self._others_tried(base, name)]
        return min(bases, key=lambda base: len(_differences(base, choice)), default=None)

    def _others_tried(self, choice: Candidate, name: str) -> list[Candidate]:
        return [other for other in self._others(choice, name) if other in self._tried]

    def _others(self, choice: Candidate, name: str) -> list[Candidate]:
        """The candidates that differ in this setting alone, whatever follows from it."""
        found = (self._space.settled(choice.changed(**{name: value})) for value in self._space.choices(name))
        return [other for other in dict.fromkeys(found) if other != choice and other in self._space]

    def _told_others(self, choice: Candidate, name: str, others: list[Candidate]) -> str:
        mine = self._objective.value(choice, self._tried[choice])
        near = sorted(others, key=lambda other: self._objective.key(other, self._tried[other]))[:_ALTERNATIVES_MAX]
        parts = []
        for other in near:
            outcome = self._tried[other]
            value = self._objective.value(other, outcome)
            part = f"{self.told(other, outcome)} ({change(value, mine)}) with {setting(name, getattr(other, name))}"
            if self._objective.excess(outcome) > self._objective.excess(self._tried[choice]):
                part += f", {percent(self._objective.excess(outcome))} beyond a limit"
            elif value < mine * (1 + TIE):
                part += ", a tie that takes more" if value >= mine * (1 - TIE) else ""
            parts.append(part)
        return "; ".join(parts)

    def _forecast_others(self, choice: Candidate, name: str) -> str:
        mine = self._forecast(choice)
        others = self._space.alternatives(choice, name)
        value = self._objective.value(choice, mine)
        parts = [
            f"{change(self._objective.value(other, self._forecast(other)), value)} with {setting(name, getattr(other, name))}"
            for other in others[:_ALTERNATIVES_MAX]
        ]
        return f"by the LRU curve {', '.join(parts)}" if parts else ""


def _differences(candidate: Candidate, choice: Candidate) -> list[str]:
    return [name for name in DIMENSIONS if getattr(candidate, name) != getattr(choice, name)]


def _differing(candidate: Candidate, choice: Candidate) -> str:
    return ", ".join(setting(name, getattr(candidate, name)) for name in _differences(candidate, choice))


def next_best(objective: Objective, tried: Tried, choice: Candidate) -> Candidate | None:
    """Return the best of what was tried beside the choice."""
    others = {candidate: outcome for candidate, outcome in tried.items() if candidate != choice}
    return objective.ranked(others)[0] if others else None


def against(objective: Objective, tried: Tried, choice: Candidate, other: Candidate) -> str:
    """Return how another candidate compares with the choice, in a sentence."""
    values = [objective.value(candidate, tried[candidate]) for candidate in (other, choice)]
    text = f"{candidate_text(other)}: {objective.title} {change(*values)}"
    if excess := objective.excess(tried[other]):
        return f"{text}, {percent(excess)} beyond a limit of the SLO"
    return f"{text}, a tie that takes more" if other in objective.tied(tried) else text
