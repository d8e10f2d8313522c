"""A trace through modelled engines over the real control half and modelled links, on a virtual clock.

Everything that decides is the cache's own code: hashing, index, policies, costs and plans (`tiercel.control`), driven in the
order in which `tiercel.cache` drives it. Nothing is random: equal inputs give equal results, to the last bit. What engines do
with requests is `serving`; over the real cache (`tiercel.tune.replay`) they do the same.
"""

from tiercel.control import Control
from tiercel.tune.simulate.clock import Clock
from tiercel.tune.simulate.operations import Operations
from tiercel.tune.simulate.result import SimulationResult
from tiercel.tune.simulate.serving import Progress
from tiercel.tune.simulate.setup import SimulationSetup
from tiercel.tune.simulate.steps import make_serving
from tiercel.tune.traces import Trace


def simulate(
    trace: Trace, setup: SimulationSetup, *, seed: int = 0, progress: Progress | None = None
) -> SimulationResult:
    """Run a trace.

    Args:
        seed: of the blocks' keys, and so of everything that samples them.

    Returns:
        What it came to; the same for the same arguments.

    Raises:
        ValueError: requests of the trace wait for each other.
    """
    return Simulation(trace, setup, seed=seed, progress=progress).run()


class Simulation:
    """One run over modelled links. `simulate` is all that most callers need."""

    def __init__(
        self, trace: Trace, setup: SimulationSetup, *, seed: int = 0, progress: Progress | None = None
    ) -> None:
        self._trace = trace
        self._setup = setup
        self.control = Control(setup.control)
        self.operations = Operations(self.control, setup, Clock(), seed=seed)
        self._serving = make_serving(trace, setup.engine, self.operations, speedup=setup.speedup, progress=progress)
        self.replicas = self._serving.replicas

    def run(self) -> SimulationResult:
        """Run to the end of the last request. Once. Raises ValueError if requests wait for each other."""
        record = self._serving.run()
        assert len(self.operations) == 0, "an operation never ended"
        control = self._setup.control
        return record.result(
            self._trace,
            tokens_per_block=control.tokens_per_block,
            block_bytes=control.block_bytes,
            tiers=self.operations.traffic(),
            refused=self.operations.refused,
            notes=self._setup.notes,
        )
