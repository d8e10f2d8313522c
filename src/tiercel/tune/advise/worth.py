"""Whether a cache is worth having at all, and if not, why not."""

from dataclasses import dataclass

from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.objective import Objective
from tiercel.tune.advise.oracle import TypicalHit
from tiercel.tune.advise.outcome import Outcome, cost_of
from tiercel.tune.advise.wording import change, percent, seconds

LEAST_GAIN = 0.02
"""Share by which the best cache must be better than none to be worth its trouble."""

LEAST_SHARING = 0.01
"""Share of tokens that an earlier prompt must have shared."""


@dataclass(frozen=True, kw_only=True)
class Worth:
    """The verdict and the sentences that it stands on."""

    is_worth_it: bool
    reasons: tuple[str, ...]


def judge(
    objective: Objective, choice: Candidate, chosen: Outcome, without: Outcome, *, sharing: float, typical: TypicalHit
) -> Worth:
    """Compare the best cache with none.

    Args:
        sharing: share of all prompts' tokens that an earlier prompt shared.
        typical: what the average hit costs with the choice.
    """
    value, alone = objective.value(choice, chosen), objective.value(None, without)
    helps_slo = objective.excess(without) > objective.excess(chosen)
    gain = 1 - value / alone if alone else 0.0
    told = _compared(objective, choice, chosen, without)
    if helps_slo or gain >= LEAST_GAIN:
        return Worth(is_worth_it=True, reasons=(told,))
    return Worth(is_worth_it=False, reasons=(told, *_causes(chosen, without, sharing=sharing, typical=typical)))


def _compared(objective: Objective, choice: Candidate, chosen: Outcome, without: Outcome) -> str:
    name = objective.minimise
    with_s, without_s = chosen.times_s[name], without.times_s[name]
    told = (
        f"{name} is {seconds(with_s)} with the cache and {seconds(without_s)} without ({change(with_s, without_s)}), of all "
        f"prompts' tokens {percent(chosen.token_hit_rate)} need no computing, without the cache {percent(without.token_hit_rate)}"
    )
    if objective.prices is None:
        return told
    costs = [
        cost_of(candidate, outcome, objective.prices, objective.num_gpus).total
        for candidate, outcome in ((choice, chosen), (None, without))
    ]
    return f"{told}; a million tokens cost {costs[0]:.4g} with it and {costs[1]:.4g} without ({change(*costs)})"


def _causes(chosen: Outcome, without: Outcome, *, sharing: float, typical: TypicalHit) -> list[str]:
    if sharing < LEAST_SHARING:
        return [
            f"requests share next to nothing: {percent(sharing)} of all prompts' tokens stood at the beginning of an earlier "
            f"prompt, and no cache of any size exceeds that"
        ]
    causes = []
    if without.token_hit_rate >= sharing - LEAST_SHARING:
        causes.append(
            f"the GPU's own cache suffices: it holds {percent(without.token_hit_rate)} of all prompts' tokens already, and a "
            f"cache without bounds would hold {percent(sharing)}"
        )
    slower = {tier: load_s for tier, load_s in typical.load_s.items() if load_s >= typical.compute_s}
    if typical.tokens and len(slower) == len(typical.load_s):
        told = " and ".join(f"{seconds(load_s)} from {tier.name.lower()}" for tier, load_s in slower.items())
        causes.append(
            f"loading is slower than computing: the average hit, {typical.tokens} tokens, takes {told}, and "
            f"{seconds(typical.compute_s)} to compute"
        )
    if not causes:
        held = percent(chosen.token_hit_rate - without.token_hit_rate)
        causes.append(
            f"what fits adds too little: {held} of all prompts' tokens beyond the GPU's own cache, of "
            f"{percent(max(0.0, sharing - without.token_hit_rate))} that a cache without bounds would add"
        )
    return causes
