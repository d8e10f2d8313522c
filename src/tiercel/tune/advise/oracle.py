"""Who answers what a candidate comes to: the seam between the search and the simulator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from tiercel.plan import LoadPolicy
from tiercel.tiers.base import TierName
from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.forecast import UNBOUNDED_TOKENS, Forecaster
from tiercel.tune.advise.outcome import Outcome, outcome_of
from tiercel.tune.simulate import SimulationResult, SimulationSetup
from tiercel.tune.traces import Trace

Simulate = Callable[[Trace, SimulationSetup], SimulationResult]
MakeSetup = Callable[[Candidate], SimulationSetup]


@dataclass(frozen=True, kw_only=True)
class TypicalHit:
    """What the trace's average hit costs.

    Attributes:
        tokens: leading tokens of a prompt that an earlier one shared, the mean of those that share any; 0 if none does.
        compute_s: seconds to compute them.
        load_s: seconds to load them, by tier, nothing else moving.
    """

    tokens: int
    compute_s: float
    load_s: Mapping[TierName, float]


class Oracle(Protocol):
    """Answers for one trace on one machine; the same answer to the same question."""

    def evaluate(self, candidate: Candidate) -> Outcome:
        """Return what a candidate comes to on the whole trace."""
        ...

    def screen(self, candidate: Candidate) -> Outcome:
        """Return what it comes to on as much of the trace as many candidates can be tried on."""
        ...

    def forecast(self, candidate: Candidate) -> Outcome:
        """Return a cheap guess, good enough to rank capacities and block sizes."""
        ...

    def without(self) -> Outcome:
        """Return what the engine comes to alone, with its own cache only."""
        ...

    def typical_hit(self, candidate: Candidate) -> TypicalHit:
        """Return what the average hit costs with a candidate's blocks."""
        ...

    @property
    def sharing(self) -> float:
        """Share of all prompts' tokens that an earlier prompt shared: what no cache exceeds."""
        ...

    @property
    def is_screening(self) -> bool:
        """Whether `screen` is another, cheaper question than `evaluate`."""
        ...


class SimulatedOracle:
    """Answers by simulation and by the LRU curve.

    Args:
        make_setup: turns a candidate into what is simulated.
        requests_max: more requests than that are screened on a stretch of this many from the trace's middle, with tiers that are
            smaller by as much as the stretch has fewer different blocks.
    """

    def __init__(
        self, trace: Trace, forecaster: Forecaster, make_setup: MakeSetup, simulate: Simulate, *, requests_max: int
    ) -> None:
        self._trace, self._forecaster = trace, forecaster
        self._make_setup, self._simulate = make_setup, simulate
        self._stretch = stretch_of(trace, requests_max) if trace.num_requests > requests_max else None
        self._scale = 1.0 if self._stretch is None else _footprint(self._stretch) / max(_footprint(trace), 1)

    @property
    def sharing(self) -> float:
        return self._forecaster.sharing

    @property
    def is_screening(self) -> bool:
        return self._stretch is not None

    def evaluate(self, candidate: Candidate) -> Outcome:
        return self._run(self._trace, self._make_setup(candidate))

    def screen(self, candidate: Candidate) -> Outcome:
        if self._stretch is None:
            return self.evaluate(candidate)
        setup = self._make_setup(candidate)
        capacities = {tier: max(1, int(slots * self._scale)) for tier, slots in setup.control.capacities.items()}
        return self._run(self._stretch, replace(setup, control=replace(setup.control, capacities=capacities)))

    def forecast(self, candidate: Candidate) -> Outcome:
        return self._forecaster.forecast(self._make_setup(candidate))

    def without(self) -> Outcome:
        setup = self._make_setup(Candidate(host_bytes=1 << 40))
        capacities = {TierName.HOST: 1}
        control = replace(setup.control, capacities=capacities, load_policy=LoadPolicy.NEVER, min_store_priority=100)
        return self._run(self._trace, replace(setup, control=control))

    def typical_hit(self, candidate: Candidate) -> TypicalHit:
        setup = self._make_setup(candidate)
        control = setup.control
        held = self._forecaster.held_tokens(UNBOUNDED_TOKENS, control.tokens_per_block)
        tokens = int(held[held > 0].mean()) if (held > 0).any() else 0
        num_bytes = tokens / control.tokens_per_block * control.block_bytes
        return TypicalHit(
            tokens=tokens,
            compute_s=setup.engine.prefill.seconds(0, tokens),
            load_s={t: setup.reads[t].latency_s + num_bytes / setup.reads[t].bytes_per_s for t in control.capacities},
        )

    def _run(self, trace: Trace, setup: SimulationSetup) -> Outcome:
        return outcome_of(self._simulate(trace, setup), int(trace.output_tokens.sum()))


def stretch_of(trace: Trace, num_requests: int) -> Trace:
    """Return consecutive requests from the middle of a trace, the first one at 0."""
    start = (trace.num_requests - num_requests) // 2
    part = slice(start, start + num_requests)
    after = trace.after[part] - start
    return replace(
        trace,
        leaves=trace.leaves[part],
        arrivals_s=trace.arrivals_s[part] - trace.arrivals_s[start],
        input_tokens=trace.input_tokens[part],
        output_tokens=trace.output_tokens[part],
        sessions=trace.sessions[part],
        after=np.where((trace.after[part] >= start) & (after >= 0), after, -1).astype(np.int32),
        delays_s=trace.delays_s[part],
    )


def _footprint(trace: Trace) -> int:
    """Different blocks of the requests of a trace, whatever else its tree holds."""
    used = np.zeros(trace.num_blocks, bool)
    used[trace.leaves[trace.leaves >= 0]] = True
    parents = trace.parents
    for block in range(trace.num_blocks - 1, -1, -1):  # parents come before their children
        if used[block] and parents[block] >= 0:
            used[parents[block]] = True
    return int(used.sum())
