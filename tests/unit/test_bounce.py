"""The disk tier's buffers: however many of them processes that were stopped may still write to, loads go on."""

from concurrent.futures import Future
from threading import Event, Thread

import pytest

from tiercel.errors import DeviceError
from tiercel.tiers.base import UnsettledError
from tiercel.tiers.bounce import BouncePool

BLOCK_BYTES = 4096


def nothing(*_: object) -> None:
    pass


def left_unsettled(pool: BouncePool, num_blocks: int = 1) -> Future[None]:
    """A store whose source does not answer. Returns what is done when it does."""
    settled: Future[None] = Future()

    def gather(*_: object) -> None:
        raise UnsettledError("silent", settled)

    with pytest.raises(UnsettledError):
        pool.store(num_blocks, gather, nothing)
    return settled


def test_stores_that_nobody_answers_take_no_lane_from_loads_and_fail_further_stores_at_once() -> None:
    pool = BouncePool(block_bytes=BLOCK_BYTES, total_bytes=1 << 16, num_lanes=3)
    held = [left_unsettled(pool) for _ in range(2)]
    moved: list[object] = []
    pool.load(5, lambda chunk, _: moved.append(chunk), nothing)
    assert moved
    with pytest.raises(DeviceError, match="hold all buffers"):
        pool.store(1, nothing, nothing)
    held[0].set_result(None)
    pool.store(1, nothing, nothing)
    held[1].set_result(None)
    pool.close()


def test_a_store_that_waits_for_a_lane_fails_when_the_last_one_is_left_unsettled() -> None:
    pool = BouncePool(block_bytes=BLOCK_BYTES, total_bytes=1 << 16, num_lanes=2)
    begun, go_on, settled, failures = Event(), Event(), Future[None](), []

    def gather(*_: object) -> None:
        begun.set()
        assert go_on.wait(10)
        raise UnsettledError("silent", settled)

    def store(gather: object) -> None:
        try:
            pool.store(1, gather, nothing)  # type: ignore[arg-type]
        except (DeviceError, UnsettledError) as error:
            failures.append(type(error))

    first = Thread(target=store, args=(gather,))
    first.start()
    assert begun.wait(10)
    second = Thread(target=store, args=(nothing,))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert sorted(failures, key=str) == sorted([UnsettledError, DeviceError], key=str)
    settled.set_result(None)
    pool.close()


def test_a_lane_is_held_too_if_the_write_failed_while_the_next_part_was_left_unsettled() -> None:
    pool = BouncePool(block_bytes=BLOCK_BYTES, total_bytes=2 * 2 * BLOCK_BYTES, num_lanes=2)
    settled: Future[None] = Future()
    gathered: list[object] = []

    def gather(chunk: object, _: object) -> None:
        gathered.append(chunk)
        if len(gathered) == 2:
            raise UnsettledError("silent", settled)

    def write(*_: object) -> None:
        raise DeviceError("the disk failed")

    with pytest.raises(UnsettledError):
        pool.store(2, gather, write)
    with pytest.raises(DeviceError, match="hold all buffers"):
        pool.store(1, nothing, nothing)
    settled.set_result(None)
    pool.store(1, nothing, nothing)
    pool.close()
