"""The threads of a lane: woken for what may start, and by nothing else."""

import threading

import numpy as np

from tiercel.plan import Move, OperationKind, Plan, pack_slots
from tiercel.tiers.base import TierName
from tiercel.transfer.crew import Crew
from tiercel.transfer.job import Chunk, Job
from tiercel.transfer.lanes import Lane, LaneName, TransferSettings

NUM_WAITING = 10
TIMEOUT_S = 30.0


class CountingCondition(threading.Condition):
    """Counts how often somebody is woken."""

    num_notified = 0

    def notify(self, n: int = 1) -> None:
        self.num_notified += n
        super().notify(n)


class Rig:
    """The lane of stores into host memory, which run one at a time, and two threads; a chunk runs until it is let go."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        settings = TransferSettings(lane_workers=2)
        self.lane = Lane(LaneName(TierName.HOST, False), settings, self.lock)
        self.has_work = CountingCondition(self.lock)
        self.lane.has_work = self.has_work
        self.began = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.crew = Crew([self.lane], self.lock, settings.lane_workers, lambda chunk: 1, self._run)
        self.crew.start()

    def _run(self, lane: Lane, chunk: Chunk) -> None:
        self.began.release()
        assert self.may_end.wait(TIMEOUT_S)

    def add(self, ticket: int) -> None:
        slots = pack_slots(np.array([ticket], np.uint32))
        move = Move(
            source=TierName.GPU,
            target=TierName.HOST,
            first_block=0,
            num_blocks=1,
            source_slots=b"",
            target_slots=slots,
            parent_key=bytes(16),
            keys=bytes(16),
        )
        plan = Plan(
            ticket=ticket,
            kind=OperationKind.STORE,
            first_block=0,
            num_blocks=1,
            moves=(move,),
            frees=(),
            deadline_s=60.0,
        )
        with self.lock:
            self.lane.waiting.add(Chunk(Job(plan, None, 0.0), 0, 0, 1))
            self.crew.wake(self.lane)

    def close(self) -> None:
        self.may_end.set()
        with self.lock:
            self.crew.end()
            self.has_work.notify_all()
        self.crew.join(TIMEOUT_S)


def test_what_cannot_start_beside_a_running_chunk_wakes_nobody_and_still_runs_after_it() -> None:
    rig = Rig()
    try:
        rig.add(0)
        assert rig.began.acquire(timeout=TIMEOUT_S)
        woken = rig.has_work.num_notified
        for ticket in range(1, NUM_WAITING + 1):
            rig.add(ticket)
        assert rig.has_work.num_notified == woken
        rig.may_end.set()
        for _ in range(NUM_WAITING):
            assert rig.began.acquire(timeout=TIMEOUT_S)
        assert rig.has_work.num_notified == woken  # whoever ends a chunk takes the next one itself
    finally:
        rig.close()
