"""Which of two outcomes is better.

1. An outcome within every limit of the SLO beats one that is not; of two that are not, the one closer to its limits wins.
2. With prices the lower cost of a million tokens wins, otherwise the lower time to first token (mean, unless told otherwise).
3. The choice among those within `TIE` of the best is the one with the least host memory, then the least written to disk,
   then the smallest disk, then the fewest settings that differ from their defaults.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tiercel.tune.advise.asking import Prices, Slo
from tiercel.tune.advise.candidate import DIMENSIONS, Candidate
from tiercel.tune.advise.outcome import Outcome, cost_of

_WRITES_STEP = 1.1
"""Factor by which amounts written must differ to count as different."""

TIE = 0.01
"""Share by which two values may differ and still count as equal."""

Tried = Mapping[Candidate, Outcome]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is asked of a configuration.

    Attributes:
        minimise: which of `TIMES` counts where no prices do.
        prices: None to judge by time.
        num_gpus: GPUs that compute one prompt together.
        disk_writes_per_day: most bytes a day that may be written to disk; None for no limit.
    """

    slo: Slo = field(default_factory=Slo)
    minimise: str = "ttft_mean"
    prices: Prices | None = None
    num_gpus: int = 1
    disk_writes_per_day: int | None = None

    @property
    def title(self) -> str:
        return self.minimise if self.prices is None else "cost of a million tokens"

    def excess(self, outcome: Outcome) -> float:
        """Return by what share the worst time lies above its limit; 0 if all are within theirs."""
        return max([0.0, *(outcome.times_s[name] / limit - 1 for name, limit in self.slo.limits_s.items())])

    def value(self, candidate: Candidate | None, outcome: Outcome) -> float:
        """Return what is to be small: money or seconds. candidate: None for no cache."""
        if self.prices is None:
            return outcome.times_s[self.minimise]
        return cost_of(candidate, outcome, self.prices, self.num_gpus).total

    def is_within_writes(self, outcome: Outcome) -> bool:
        """Whether as little is written to disk as was asked."""
        limit = self.disk_writes_per_day
        return limit is None or outcome.disk_written_bytes_per_day <= limit * (1 + TIE)

    def key(self, candidate: Candidate | None, outcome: Outcome) -> tuple[bool, float, float]:
        """Return what sorts outcomes, the best one first; ties apart."""
        excess = self.excess(outcome)
        return not self.is_within_writes(outcome), excess, self.value(candidate, outcome)

    def ranked(self, tried: Tried) -> list[Candidate]:
        """Return the candidates, the best one first; ties by what they take."""
        return sorted(tried, key=lambda candidate: (*self.key(candidate, tried[candidate]), *_takes(candidate, tried)))

    def choose(self, tried: Tried) -> Candidate:
        """Return the choice: of those that tie with the best, the one that takes least."""
        return min(self.tied(tried), key=lambda candidate: _takes(candidate, tried))

    def tied(self, tried: Tried) -> list[Candidate]:
        """Return the best candidate and all that are as good within `TIE`."""
        best = self.ranked(tried)[0]
        too_much, excess, value = self.key(best, tried[best])
        return [
            candidate
            for candidate, outcome in tried.items()
            if (key := self.key(candidate, outcome))[0] == too_much
            and key[1] <= excess + (TIE if excess else 0.0)
            and (key[2] <= value * (1 + TIE) or bool(excess))
        ]


def num_changed(candidate: Candidate) -> int:
    """Return how many settings, capacities apart, differ from their defaults."""
    plain = Candidate(host_bytes=candidate.host_bytes, disk_bytes=candidate.disk_bytes)
    return sum(getattr(candidate, name) != getattr(plain, name) for name in DIMENSIONS)


def _takes(candidate: Candidate, tried: Tried) -> tuple[float, ...]:
    return (
        candidate.host_bytes,
        _magnitude(tried[candidate].disk_written_bytes),
        candidate.disk_bytes,
        num_changed(candidate),
        candidate.tokens_per_block,
    )


def _magnitude(num_bytes: float) -> int:
    """Return a number that is the same for amounts that differ by a few percent."""
    return round(math.log(max(num_bytes, 1.0), _WRITES_STEP))
