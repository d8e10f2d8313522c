"""The simulation of a replay in lockstep: what `Pace.LOCKSTEP` is in reality, over modelled links.

Each load or store is followed to its end, with all that it led to, before anything else happens; settings
that depend on the time are left out, as in the replay. So the index sees the same calls
in the same order as in the replay, however long anything takes in either.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiercel import Lookup, Sequence
from tiercel.control import Control
from tiercel.plan import LoadPolicy
from tiercel.tune.simulate import EngineModel, SimulationResult, SimulationSetup
from tiercel.tune.simulate.caches import OnLoaded
from tiercel.tune.simulate.clock import Clock
from tiercel.tune.simulate.operations import Operations
from tiercel.tune.simulate.serving import Progress
from tiercel.tune.simulate.steps import make_serving
from tiercel.tune.traces import NO_REQUEST, Trace

_APART_S = 3600.0
"""Time between requests in lockstep for loads, beside that for prefill and decode: longer than a load's deadline may be."""


def in_lockstep(trace: Trace, engine: EngineModel) -> Trace:
    """Return a trace whose requests come one by one, each after the one before has ended; on a virtual clock that costs
    nothing."""
    if trace.num_requests == 0:
        return trace
    longest_s = engine.prefill.seconds(0, int(trace.input_tokens.max()))
    longest_s += int(trace.output_tokens.max()) * engine.decode_token_s
    return replace(
        trace,
        arrivals_s=np.arange(trace.num_requests, dtype=np.float64) * (longest_s + _APART_S),
        after=np.full(trace.num_requests, NO_REQUEST, np.int32),
    )


def simulate_in_lockstep(
    trace: Trace, setup: SimulationSetup, *, root: bytes, progress: Progress | None = None
) -> SimulationResult:
    """Run a trace as a replay in lockstep does. Result and errors as of `simulate`.

    Args:
        trace, setup, progress: as of `simulate`; `setup.speedup` does not matter.
        root: key before each prompt's first block, `ReplaySetup.root_key`: what samples keys or counts them in a sketch, as
            `on_second_hit` does, then sees the same ones.
    """
    policy = setup.control.load_policy
    control = replace(
        setup.control,
        load_policy=LoadPolicy.ALWAYS if policy is LoadPolicy.AUTO else policy,
        hit_reward_seconds=0.0,
        ssd_write_budget_per_day=None,
    )
    cache = _SteppedCache(replace(setup, control=control, relieves_when_idle=True), root)
    record = make_serving(in_lockstep(trace, setup.engine), setup.engine, cache, progress=progress).run()
    return record.result(
        trace,
        tokens_per_block=setup.control.tokens_per_block,
        block_bytes=setup.control.block_bytes,
        tiers=cache.operations.traffic(),
        refused=cache.operations.refused,
        notes=setup.notes,
    )


class _SteppedCache:
    """A `ServedCache` whose calls return when all that they began has ended: engines and links have a clock each."""

    def __init__(self, setup: SimulationSetup, root: bytes) -> None:
        self._root = root
        self.clock = Clock()
        self._transfers = Clock()
        self.operations = Operations(Control(setup.control), setup, self._transfers)
        self.tokens_per_block = self.operations.tokens_per_block
        self.tiers = self.operations.tiers
        self.observe_prefill = self.operations.observe_prefill
        self.expect_store = self.operations.expect_store

    def sequence(self, tokens: NDArray[np.int32]) -> Sequence:
        return Sequence(self._root, self.tokens_per_block, tokens)

    def lookup(self, sequence: Sequence, *, limit_tokens: int, engine_tokens: int) -> Lookup:
        self._begin()
        return self.operations.lookup(sequence, limit_tokens=limit_tokens, engine_tokens=engine_tokens)

    def load(self, lookup: Lookup, on_loaded: OnLoaded) -> bool:
        began_s = self._begin()
        ended: list[tuple[float, int]] = []
        if not self.operations.load(lookup, lambda num_blocks: ended.append((self._transfers.now_s, num_blocks))):
            return False
        self._transfers.run()
        ((ended_s, num_blocks),) = ended
        self.clock.at(self.clock.now_s + ended_s - began_s, on_loaded, num_blocks)
        return True

    def store(self, sequence: Sequence, blocks: range) -> None:
        self._begin()
        self.operations.store(sequence, blocks)
        self._transfers.run()

    def _begin(self) -> float:
        """Let the links' time catch up with the engines'. It may be ahead: what was stored last took its time."""
        if self._transfers.now_s < self.clock.now_s:
            self._transfers.at(self.clock.now_s, _pass_time)
            self._transfers.run()
        return self._transfers.now_s


def _pass_time(_: None) -> None:
    """Nothing happens; the clock has come further."""
