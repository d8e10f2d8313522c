"""Tickets resolve once, wake everyone who waits, from threads and from asyncio."""

import asyncio
import threading

import numpy as np
import pytest

from tiercel.cache.tickets import Outcome, Ticket, TransferResult
from tiercel.errors import DeadlineError
from tiercel.plan import OperationKind
from tiercel.tiers.base import BlockStatus


def result(*statuses: BlockStatus) -> TransferResult:
    return TransferResult(
        kind=OperationKind.LOAD,
        outcome=Outcome.DONE,
        statuses=np.array(statuses, np.uint8),
        blocks_by_tier={},
        bytes_by_tier={},
        seconds=0.1,
    )


def ticket(cancelled: list[int] | None = None) -> Ticket:
    return Ticket(7, OperationKind.LOAD, 3, (cancelled if cancelled is not None else []).append)


def test_only_leading_blocks_count_as_usable() -> None:
    assert result(BlockStatus.OK, BlockStatus.CORRUPT, BlockStatus.OK).num_blocks_ok == 1
    assert result(BlockStatus.OK, BlockStatus.OK).ok
    assert result().num_blocks_ok == 0
    assert result().ok


def test_a_wait_that_times_out_leaves_the_ticket_running() -> None:
    t = ticket()
    with pytest.raises(DeadlineError, match="load ticket 7 has no outcome"):
        t.wait(0.01)
    assert t.try_wait() is None
    assert t.resolve(result(BlockStatus.OK))
    assert t.wait(0).ok


def test_the_first_outcome_stands() -> None:
    t = ticket()
    assert t.resolve(result(BlockStatus.OK))
    assert not t.resolve(result(BlockStatus.CORRUPT))
    assert t.wait().ok


def test_every_waiting_thread_wakes() -> None:
    t = ticket()
    results: list[TransferResult] = []
    threads = [threading.Thread(target=lambda: results.append(t.wait(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    t.resolve(result(BlockStatus.OK))
    for thread in threads:
        thread.join()
    assert len(results) == 4


def test_the_source_is_free_before_or_with_the_outcome() -> None:
    early, late = ticket(), ticket()
    with pytest.raises(DeadlineError, match="still reads its source"):
        early.wait_source(0.01)
    early.free_source()
    early.wait_source(0)
    assert not early.done
    late.resolve(result())
    late.wait_source(0)


def test_callbacks_run_once_whether_added_before_or_after() -> None:
    t, calls = ticket(), []
    t.add_done_callback(lambda: calls.append("before"))
    t.resolve(result())
    t.add_done_callback(lambda: calls.append("after"))
    assert calls == ["before", "after"]


def test_a_ticket_can_be_awaited_while_a_thread_resolves_it() -> None:
    async def main() -> TransferResult:
        t = ticket()
        threading.Timer(0.02, lambda: t.resolve(result(BlockStatus.OK))).start()
        return await asyncio.wait_for(t, 5)

    assert asyncio.run(main()).ok


def test_cancelling_the_awaiting_task_cancels_the_ticket() -> None:
    cancelled: list[int] = []

    async def wait_for(t: Ticket) -> None:
        await t

    async def main() -> None:
        task = asyncio.create_task(wait_for(ticket(cancelled)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cancelled == [7]
