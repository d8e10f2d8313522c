"""How a replay is ended from outside: once, and not in the middle of making or removing what it leaves behind.

The signals that end a command are Ctrl-C, SIGTERM, and SIGHUP of a closed window. A command that owns its process lets the
first of them unwind it (`leave_on_signals`); what must be done whole makes them wait (`undisturbed`).
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """Raise the first ending signal as KeyboardInterrupt or SystemExit(128 + its number), and take no notice of further ones.

    Whoever sends a second one cannot make the clean-up of the first end early: it is bounded by itself. For the main thread.
    """
    received: list[int] = []

    def leave(number: int, _: FrameType | None) -> None:
        if received:
            return
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    with _handled_by(leave):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let ending signals wait for something short that must be done whole; then the first of them is delivered.

    A mask of signals would not do: the kernel gives a signal to any thread of the process, and the main one is interrupted.
    Beside the main thread, which alone is interrupted by signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    try:
        with _handled_by(lambda number, _: received.append(number)):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    previous = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    # What nobody is to notice, as under nohup, stays unnoticed; what was not set from Python could not be set back.
    taken = [number for number, before in previous.items() if before not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, handler)
        yield
    finally:
        for number in taken:
            signal.signal(number, previous[number])
