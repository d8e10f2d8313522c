"""How often something is measured: until its repeats lie close together, or until its time is over.

Pure but for the clock, which is handed in. A figure whose time was over first is kept with its spread, and `Figure.is_trusted`
says what it is worth.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from tiercel.tune.machine import Figure

Clock = Callable[[], float]
"""Seconds, monotonic."""

Sample = Callable[[], Sequence[float]]
"""One measurement of one or more quantities, taken side by side."""

REPEATS_MIN = 5
"""Fewest repeats after which a small spread is believed."""

REPEATS_LEAST = 3
"""Fewest repeats of a figure whose time is over: fewer have no quartiles to speak of."""

REPEATS_MAX = 25
"""More repeats do not bring the quartiles closer together: the spread is the machine's."""


def figure_of(values: Sequence[float]) -> Figure:
    """Return the median and the quartiles of repeats."""
    low, middle, high = np.percentile(np.asarray(values, dtype=np.float64), (25, 50, 75))
    return Figure(value=float(middle), low=float(low), high=float(high), repeats=len(values))


def repeat_until_trusted(sample: Sample, *, seconds: float, clock: Clock = time.monotonic) -> tuple[Figure, ...]:
    """Measure until every quantity is trusted, or time is over.

    Args:
        sample: measures once; what it raises ends the measurement.
        seconds: time that the repeats take together; none is started that would end later, once there are `REPEATS_LEAST`.

    Returns:
        A figure for each quantity of the sample.
    """
    started = clock()
    samples: list[Sequence[float]] = []
    while True:
        samples.append(sample())
        figures = tuple(figure_of(values) for values in zip(*samples, strict=True))
        with_one_more = (clock() - started) * (len(samples) + 1) / len(samples)
        is_over = with_one_more > seconds and len(samples) >= REPEATS_LEAST
        is_settled = len(samples) >= REPEATS_MIN and all(figure.is_trusted for figure in figures)
        if is_over or is_settled or len(samples) >= REPEATS_MAX:
            return figures


class TimeBudget:
    """A span of time shared out over steps: what one leaves over goes to those behind it."""

    def __init__(self, seconds: float, num_shares: float, clock: Clock = time.monotonic) -> None:
        """Start now.

        Args:
            seconds: time of all steps together.
            num_shares: sum of the shares that will be taken.
        """
        self._stop_at = clock() + seconds
        self._num_shares = num_shares
        self._clock = clock

    def take(self, num_shares: float = 1.0) -> float:
        """Return the seconds of the next step: its share of what is left, never negative."""
        left = max(0.0, self._stop_at - self._clock())
        seconds = left * num_shares / max(self._num_shares, num_shares)
        self._num_shares -= num_shares
        return seconds
