"""A long native pass ends when the user asks for it, and lets other threads run meanwhile."""

import signal
import threading
import time

import numpy as np
import pytest

from tiercel._native import Belady, lru_hits

LENGTH = 4000
NUM_REQUESTS = 200_000
"""800 million references: minutes, if nothing ended it."""


def chain() -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], np.ndarray[tuple[int], np.dtype[np.int32]]]:
    return np.arange(-1, LENGTH - 1, dtype=np.int32), np.full(NUM_REQUESTS, LENGTH - 1, np.int32)


def test_ctrl_c_ends_a_pass() -> None:
    parents, leaves = chain()
    tokens = np.full(NUM_REQUESTS, LENGTH, np.int64)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for work in (lambda: lru_hits(parents, leaves, tokens, 1), lambda: Belady(parents, leaves)):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_run_during_a_pass() -> None:
    parents, leaves = chain()
    few = leaves[:5000]
    tokens = np.full(len(few), LENGTH, np.int64)
    started = threading.Event()
    ticks: list[float] = []

    def tick() -> None:
        started.set()
        while started.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    started.wait()
    first = len(ticks)
    lru_hits(parents, few, tokens, 1)
    during = len(ticks) - first
    started.clear()
    thread.join()
    assert during > 3
