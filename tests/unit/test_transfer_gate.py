"""Stores that wait for the engine: they take no lane's time, and end when they are cancelled."""

import queue
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.helpers.tier_samples import ODD_BLOCK_BYTES
from tiercel.errors import DeviceError
from tiercel.plan import Completion, Move, OperationKind, Plan, pack_slots
from tiercel.tiers.base import BlockStatus, TierName
from tiercel.tiers.host import HostTier
from tiercel.tiers.memory import allocate_memory
from tiercel.transfer.engine import TransferEngine
from tiercel.transfer.lanes import LaneName, TransferSettings
from tiercel.transfer.sides import EngineSide

NUM_SLOTS = 8


class Rig:
    """A transfer engine over host memory, and stores and loads of two blocks each."""

    def __init__(self) -> None:
        self.completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        self.host = HostTier(num_slots=NUM_SLOTS, block_bytes=ODD_BLOCK_BYTES)
        tiers = {TierName.HOST: self.host}
        self.engine = TransferEngine(tiers, TransferSettings(), on_completion=self.completions.put)

    def submit(self, ticket: int, kind: OperationKind, ready: Callable[[float], bool] | None) -> None:
        slots = pack_slots(np.arange(2 * ticket, 2 * ticket + 2, dtype=np.uint32))
        storing = kind is OperationKind.STORE
        move = Move(
            source=TierName.GPU if storing else TierName.HOST,
            target=TierName.HOST if storing else TierName.GPU,
            first_block=0,
            num_blocks=2,
            source_slots=b"" if storing else slots,
            target_slots=slots if storing else b"",
            parent_key=bytes(16),
            keys=bytes(2 * 16),
        )
        plan = Plan(ticket=ticket, kind=kind, first_block=0, num_blocks=2, moves=(move,), frees=(), deadline_s=60.0)
        self.engine.submit(plan, EngineSide(allocate_memory(2, ODD_BLOCK_BYTES), on_gpu=True, ready=ready))

    def completion(self) -> Completion:
        return self.completions.get(timeout=30)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    assert rig.engine.close()
    rig.host.close()


def test_a_store_that_waits_for_the_engine_is_queued_and_lets_others_go_first(rig: Rig) -> None:
    event = threading.Event()
    for ticket in (0, 1, 2):
        rig.submit(ticket, OperationKind.STORE, event.wait)
    rig.submit(3, OperationKind.STORE, None)
    assert rig.completion().ticket == 3
    assert rig.completions.empty()
    time.sleep(0.2)
    event.set()
    waited = [rig.completion() for _ in range(3)]
    assert sorted(one.ticket for one in waited) == [0, 1, 2]
    for one in waited:
        assert set(one.statuses) == {BlockStatus.OK}
        assert one.queued_s >= 0.2 > one.busy_s


def test_a_load_is_given_to_the_device_at_once(rig: Rig) -> None:
    rig.submit(1, OperationKind.STORE, None)
    assert rig.completion().ticket == 1
    rig.submit(1, OperationKind.LOAD, threading.Event().wait)
    assert set(rig.completion().statuses) == {BlockStatus.OK}


def test_a_store_that_is_cancelled_while_it_waits_ends_at_once_and_holds_up_no_other(rig: Rig) -> None:
    rig.submit(0, OperationKind.STORE, threading.Event().wait)
    rig.submit(1, OperationKind.STORE, lambda timeout_s: True)
    rig.engine.cancel(0)
    ended = {one.ticket: set(one.statuses) for one in (rig.completion(), rig.completion())}
    assert ended == {0: {BlockStatus.CANCELLED}, 1: {BlockStatus.OK}}


def test_closing_ends_stores_whose_event_never_passes(rig: Rig) -> None:
    started = time.monotonic()
    for ticket in range(4):
        rig.submit(ticket, OperationKind.STORE, threading.Event().wait)
    assert rig.engine.close()
    assert time.monotonic() - started < 10
    assert all(set(rig.completion().statuses) == {BlockStatus.CANCELLED} for _ in range(4))
    assert "tiercel-gate" not in {thread.name for thread in threading.enumerate()}


def test_a_device_that_fails_while_it_is_waited_for_leaves_the_answer_to_the_copy(rig: Rig) -> None:
    def fail(timeout_s: float) -> bool:
        raise DeviceError("cuda:0, waiting for the engine: cuEventQuery: 700")

    rig.submit(0, OperationKind.STORE, fail)
    rig.submit(1, OperationKind.STORE, lambda timeout_s: True)
    assert {rig.completion().ticket, rig.completion().ticket} == {0, 1}


@pytest.mark.parametrize("interrupted_before", [True, False])
def test_a_store_whose_queueing_a_signal_interrupts_ends_when_the_engine_closes(interrupted_before: bool) -> None:
    rig = Rig()
    waiting = rig.engine._lanes[LaneName(TierName.HOST, False)].waiting
    add = waiting.add

    def interrupt(*arguments: object) -> None:
        if not interrupted_before:
            add(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rig.submit(0, OperationKind.STORE, None)
    assert rig.engine.close()
    assert len(rig.completion().statuses) == 2
    rig.host.close()
