"""What to set for one's own traffic on one's own machine, why, what it costs, and whether it is worth it.

`advise` searches a `Space` of candidates for an `Objective`, asking an `Oracle` (the simulator) what each comes to.
"""

from tiercel.tune.advise.advice import Advice, Margin, Question, RuleVerdict, Weighed, advise
from tiercel.tune.advise.asking import Budget, Prices, Slo, parse_budget, parse_prices, parse_slo
from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.forecast import Forecaster
from tiercel.tune.advise.objective import Objective
from tiercel.tune.advise.oracle import Oracle, SimulatedOracle, TypicalHit
from tiercel.tune.advise.outcome import Cost, Outcome
from tiercel.tune.advise.space import Space, space_of

__all__ = [
    "Advice",
    "Budget",
    "Candidate",
    "Cost",
    "Forecaster",
    "Margin",
    "Objective",
    "Oracle",
    "Outcome",
    "Prices",
    "Question",
    "RuleVerdict",
    "SimulatedOracle",
    "Slo",
    "Space",
    "TypicalHit",
    "Weighed",
    "advise",
    "parse_budget",
    "parse_prices",
    "parse_slo",
    "space_of",
]
