"""A device that does not answer while it holds an engine's memory itself: what it holds up, and what it does not."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.test_keyed_cache import BLOCK_BYTES, Bench
from tiercel import DeadlineError, Outcome
from tiercel.cache.keyed import Launched
from tiercel.tiers.base import BlockMemory, Slots, Statuses, Tier, TierName
from tiercel.tiers.wrapper import TierWrapper

NAMES = [f"block {i}" for i in range(16)]


class StuckTier(TierWrapper):
    """A tier that reads nothing until it is let go."""

    def __init__(self, inner: Tier) -> None:
        super().__init__(inner)
        self.entered, self.answers = threading.Semaphore(0), threading.Event()

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        self.entered.release()
        assert self.answers.wait(60)
        return super().read(slots, target)


@contextmanager
def stuck_bench(folder: Path, close_timeout_s: float = 30.0) -> Iterator[tuple[Bench, StuckTier]]:
    """A cache that holds blocks, a chunk each, whose disk then answers no more; at the end it does."""
    bench = Bench(folder, transfer_chunk_bytes=BLOCK_BYTES)
    assert bench.store(*NAMES) == len(NAMES)
    transfer = bench.cache._dispatcher.transfer
    transfer._settings = replace(transfer._settings, close_timeout_s=close_timeout_s)
    stuck = transfer._tiers[TierName.DISK] = StuckTier(transfer._tiers[TierName.DISK])
    try:
        yield bench, stuck
    finally:
        stuck.answers.set()
        bench.cache.close()


def begin(bench: Bench, stuck: StuckTier, *names: str, direct: bool = True, timeout_s: float = 60.0) -> Launched:
    """Begin to load blocks from a disk that is stuck."""
    ids = [NAMES.index(name) for name in names]
    launched = bench.cache.load(bench.named(*names), bench.memory.blocks(ids), direct=direct, timeout_s=timeout_s)
    assert stuck.entered.acquire(timeout=10)
    return launched


def test_a_late_ticket_whose_memory_is_held_does_not_hold_up_other_deadlines(tmp_path: Path) -> None:
    with stuck_bench(tmp_path) as (bench, stuck):
        held = begin(bench, stuck, NAMES[0], timeout_s=0.05).ticket
        other = begin(bench, stuck, NAMES[1], direct=False, timeout_s=0.1).ticket
        assert other.wait(10).outcome is Outcome.DEADLINE
        with pytest.raises(DeadlineError):
            held.wait(0.1)
        stuck.answers.set()
        assert held.wait(10).outcome is Outcome.DEADLINE


def test_close_is_bounded_and_ends_every_ticket_whose_memory_is_free(tmp_path: Path) -> None:
    with stuck_bench(tmp_path, close_timeout_s=0.3) as (bench, stuck):
        held = begin(bench, stuck, NAMES[0]).ticket
        other = begin(bench, stuck, NAMES[1], direct=False).ticket
        closing = threading.Thread(target=bench.cache.close)
        closing.start()
        closing.join(20)
        in_time = not closing.is_alive()
        outcomes = [ticket.done for ticket in (held, other)]
        stuck.answers.set()
        closing.join(20)
        assert in_time, "close waits for a device that does not answer"
        assert outcomes == [False, True], "memory that a device may still write to is not given back"
        assert held.wait(10).outcome is Outcome.CANCELLED
        for tier in bench.cache._assembly.tiers.values():  # left to the process's end by the cache
            tier.close()


def test_a_signal_while_cancel_waits_for_the_device_loses_no_part_of_the_load(tmp_path: Path) -> None:
    with stuck_bench(tmp_path) as (bench, stuck):
        ticket = begin(bench, stuck, *NAMES).ticket
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main = threading.main_thread().ident
        assert main is not None
        ringing = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
        ringing.start()
        with pytest.raises(KeyboardInterrupt):
            ticket.cancel()
        stuck.answers.set()
        assert ticket.wait(10).outcome is Outcome.CANCELLED
        assert bench.cache._dispatcher.transfer.drain(10)
        assert bench.cache.stats().tiers[0].num_pinned == 0


def test_a_reset_that_finds_the_memory_held_ends_in_time(tmp_path: Path) -> None:
    with stuck_bench(tmp_path) as (bench, stuck):
        begin(bench, stuck, NAMES[0])
        started = time.monotonic()
        with pytest.raises(DeadlineError, match="nothing was forgotten"):
            bench.cache._dispatcher.reset(0.2, lambda: None)
        assert time.monotonic() - started < 20
        stuck.answers.set()
