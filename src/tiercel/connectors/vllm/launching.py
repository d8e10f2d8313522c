"""The scheduler's process launches a step's plan where workers have processes of their own; they are told the rest.

The cache lies beside the scheduler, so this is the worker's half (`working`) at another place: it launches when the step is
scheduled, and the copies wait in the workers for the step's marks (`ranks`). What has ended goes to the workers with the plan,
and they report it at the end of the step, all of them the same.
"""

from tiercel.connectors.vllm.engine import SharedEngine
from tiercel.connectors.vllm.plans import RankPlan, StepPlan
from tiercel.connectors.vllm.reach import RankReach
from tiercel.connectors.vllm.settings import ConnectorSettings
from tiercel.connectors.vllm.working import WorkerSide


class Launcher:
    """Launches in the scheduler's thread and waits for nothing."""

    def __init__(self, engine: SharedEngine, settings: ConnectorSettings) -> None:
        self._engine = engine
        self._launches = WorkerSide(engine, settings)
        self._step = 0

    def launch(self, plan: StepPlan) -> RankPlan:
        """Launch a step's plan. Returns what the workers are told of it."""
        reach, launches = self._engine.reach, self._launches
        assert isinstance(reach, RankReach)
        self._step += 1
        marks = RankPlan(
            step=self._step, marks_start=bool(plan.loads or plan.settled_stores), marks_end=bool(plan.stores)
        )
        reach.begin(marks)
        launches.fence(plan)
        launches.begin(plan)
        launches.load(plan)
        reach.end(marks)
        launches.store(plan)
        sent, received = launches.finished(set(self._engine.held))
        return RankPlan(
            step=marks.step,
            meeting=reach.meeting,
            marks_start=marks.marks_start,
            marks_end=marks.marks_end,
            sent=frozenset(sent),
            received=frozenset(received),
            failed_blocks=frozenset(launches.take_failed_blocks()),
        )

    def close(self) -> None:
        """End what still touches the workers' memory."""
        self._launches.close()
