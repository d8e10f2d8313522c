"""Rules of thumb of other caches' guides, applied to this trace: what each would cost.

Each rule changes one thing of the choice, so that what is told is its own cost; the last one follows all at once. Rules about
transfers are judged by the machine's figures, and what neither says anything about is named as unjudged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tiercel.config import ModelConfig
from tiercel.tune.advise.asking import Budget
from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.moving import copy_rates, piece_bytes_of, read_rates
from tiercel.tune.machine import Machine

_CTAS_BY_GPU = {"A100": 8, "H100": 16}
_DEPTHS = (512, 1024, 2048)
_PROMPTS = (10, 100)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of thumb.

    Attributes:
        text: what it says.
        candidate: the choice with the rule followed; None where the simulator cannot judge it.
        judged: what the machine's figures say of it, or why it is unjudged; "" where it is simulated.
    """

    text: str
    candidate: Candidate | None = None
    judged: str = ""


def rules_of(
    choice: Candidate, budget: Budget, machine: Machine, model: ModelConfig, mean_prompt_tokens: float
) -> list[Rule]:
    """Return every rule, the simulated ones first."""
    rules = [_of(choice, f"{tokens} tokens a block", tokens_per_block=tokens) for tokens in (16, 32, 64, 128)]
    rules += [_of(choice, f"evict {share:.0%} at once (evict_ratio)", evict_ratio=share) for share in (0.05, 0.1)]
    rules += _capacity_rules(choice, budget, model.token_size_in_bytes * mean_prompt_tokens)
    if choice.disk_bytes:
        admission = "through" if choice.ssd_admission == "on_evict" else choice.ssd_admission
        rules.append(_of(choice, "bypass host memory under load", host_bytes=0, ssd_admission=admission))
    rules.append(_all_at_once(choice, budget))
    rules = [_with_room(rule, model.token_size_in_bytes) for rule in rules]
    rules += _copy_rules(machine, piece_bytes_of(model, choice.tokens_per_block))
    rules += _depth_rules(machine, model.token_size_in_bytes * choice.tokens_per_block)
    return rules


def _of(choice: Candidate, text: str, **changed: object) -> Rule:
    candidate = choice.changed(**changed).settled()
    return Rule(text=text, candidate=candidate)


def _with_room(rule: Rule, token_bytes: int) -> Rule:
    """Return the rule; as unjudged if a tier that it asks for would hold no block."""
    if rule.candidate is None or rule.candidate.has_room(token_bytes):
        return rule
    size = rule.candidate.tokens_per_block
    return Rule(text=rule.text, judged=f"unjudged: a tier would be smaller than one block of {size} tokens")


def _capacity_rules(choice: Candidate, budget: Budget, prompt_bytes: float) -> list[Rule]:
    rules = []
    if budget.host_bytes and budget.disk_bytes:
        for factor in (10, 100):
            host = min(budget.host_bytes, max(1, budget.disk_bytes // factor))
            disk = min(budget.disk_bytes, host * factor)
            text = f"disk {factor} times host memory, as large as the budget allows"
            rules.append(_of(choice, text, host_bytes=host, disk_bytes=disk))
    if budget.host_bytes and prompt_bytes:
        for count in _PROMPTS:
            host = int(count * prompt_bytes)
            within = host <= budget.host_bytes
            text = f"host memory for {count} prompts of the trace's mean length" + (
                "" if within else ", cut to the budget"
            )
            rules.append(_of(choice, text, host_bytes=min(host, budget.host_bytes)))
    return rules


def _all_at_once(choice: Candidate, budget: Budget) -> Rule:
    host = min(budget.host_bytes, budget.disk_bytes // 10) if budget.disk_bytes else budget.host_bytes
    disk = min(budget.disk_bytes, 10 * host) if host else budget.disk_bytes
    candidate = Candidate(host_bytes=host, disk_bytes=disk, tokens_per_block=16, evict_ratio=0.05).settled()
    text = "the example configuration: 16 tokens a block, disk 10 times host memory, lru, evict_ratio 0.05, all written"
    return Rule(text=text, candidate=candidate if candidate.is_possible else choice.changed(evict_ratio=0.05))


def _copy_rules(machine: Machine, piece_bytes: int) -> list[Rule]:
    rules = []
    gpu = machine.gpus[0].name if machine.gpus else ""
    for name, ctas in _CTAS_BY_GPU.items():
        text = f"{ctas} CTAs on an {name}"
        if machine.gpus and name not in gpu:
            rules.append(Rule(text=text, judged=f"does not apply to {gpu}"))
            continue
        rules.append(Rule(text=text, judged=_judge_copies(machine, piece_bytes, ctas)))
    rules.append(Rule(text="the copy engine raises transfer speed", judged=_judge_copies(machine, piece_bytes, 0)))
    return rules


def _judge_copies(machine: Machine, piece_bytes: int, ctas: int) -> str:
    told = []
    for direction in ("h2d", "d2h"):
        measured, rates = copy_rates(machine, direction, piece_bytes)
        if ctas not in rates:
            return "unjudged: machine.json has no such copies"
        fastest = max(rates, key=lambda key: (rates[key], -key))
        way = f"{fastest} CTAs" if fastest else "the copy engine"
        told.append(
            f"{direction} {rates[ctas] / 1e9:.1f} GB/s, the fastest is {rates[fastest] / 1e9:.1f} GB/s with {way} "
            f"(pieces of {measured} bytes)"
        )
    return "; ".join(told)


def _depth_rules(machine: Machine, block_bytes: int) -> Sequence[Rule]:
    measured, rates = read_rates(machine.directories, block_bytes)
    rules = []
    for depth in _DEPTHS:
        text = f"{depth} disk requests in flight"
        if not rates:
            rules.append(Rule(text=text, judged="unjudged: machine.json has no reads of a directory"))
        elif depth in rates:
            best = max(rates, key=lambda key: (rates[key], -key))
            judged = (
                f"{rates[depth] / 1e9:.2f} GB/s, the fastest is {rates[best] / 1e9:.2f} GB/s at {best} (reads of {measured} "
                f"bytes)"
            )
            rules.append(Rule(text=text, judged=judged))
        else:
            rules.append(Rule(text=text, judged=f"unjudged: machine.json has up to {max(rates)}"))
    return rules
