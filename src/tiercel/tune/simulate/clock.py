"""The virtual clock: what is to happen, in order of time, and among equal times in the order in which it was asked for.

The links' own events stand in the same order and never come up to Python: `native/core/simulate` runs them.
"""

from collections.abc import Callable
from typing import Any

from tiercel._native import SimulatedLinks

OnMoveEnd = Callable[[int, int, int, float, float], None]
"""Told (ticket, move, leading blocks that arrived, busy_s, queued_s) of a move that ended."""


class Clock(SimulatedLinks):
    """Runs events until there are none left. Its `now_s` is the time of the event that runs."""

    __slots__ = ("_acts", "on_move_end")

    def __init__(self) -> None:
        super().__init__()
        self.on_move_end: OnMoveEnd = _ignore
        """Told of each move of a submitted plan that ends; set before `run`."""
        self._acts: dict[int, tuple[Callable[[Any], None], Any]] = {}

    def at(self, time_s: float, act: Callable[[Any], None], argument: Any = None) -> None:
        """Call `act(argument)` at a time that is not past."""
        self._acts[self.schedule(time_s)] = (act, argument)

    def run(self) -> None:
        """Run events, and those that they ask for, until none is left."""
        self.run_events(self._happen, self.on_move_end)

    def _happen(self, number: int) -> None:
        act, argument = self._acts.pop(number)
        act(argument)


def _ignore(*_: object) -> None:
    """No plan was submitted, so no move ends."""
