"""How often something is measured: a clock and measurements that are made up, so that every run is the same."""

from collections.abc import Iterator, Sequence
from itertools import chain, cycle, repeat

import pytest

from tiercel.tune.probe.trust import (
    REPEATS_LEAST,
    REPEATS_MAX,
    REPEATS_MIN,
    TimeBudget,
    figure_of,
    repeat_until_trusted,
)


class FakeTime:
    """A clock that stands still but for what measurements take."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakeSample:
    """Measurements with given results, each of which takes a second."""

    def __init__(self, clock: FakeTime, *quantities: Iterator[float]) -> None:
        self.clock = clock
        self.quantities = quantities
        self.count = 0

    def __call__(self) -> Sequence[float]:
        self.clock.now_s += 1.0
        self.count += 1
        return tuple(next(values) for values in self.quantities)


def test_a_steady_quantity_is_measured_as_often_as_must_be_and_trusted() -> None:
    clock = FakeTime()
    sample = FakeSample(clock, repeat(50.0))
    (figure,) = repeat_until_trusted(sample, seconds=1000, clock=clock)
    assert sample.count == figure.repeats == REPEATS_MIN
    assert (figure.value, figure.low, figure.high) == (50.0, 50.0, 50.0)
    assert figure.is_trusted


def test_a_disturbed_start_is_outlived() -> None:
    clock = FakeTime()
    sample = FakeSample(clock, chain([10.0, 20.0, 30.0], repeat(50.0)))
    (figure,) = repeat_until_trusted(sample, seconds=1000, clock=clock)
    assert REPEATS_MIN < figure.repeats < REPEATS_MAX
    assert figure.value == 50.0
    assert figure.is_trusted


def test_noise_is_measured_until_its_time_is_over_and_not_trusted() -> None:
    clock = FakeTime()
    sample = FakeSample(clock, cycle([10.0, 50.0, 90.0]))
    (figure,) = repeat_until_trusted(sample, seconds=8, clock=clock)
    assert figure.repeats == 8
    assert not figure.is_trusted


def test_noise_with_time_to_spare_ends_all_the_same() -> None:
    clock = FakeTime()
    (figure,) = repeat_until_trusted(FakeSample(clock, cycle([10.0, 90.0])), seconds=1e9, clock=clock)
    assert figure.repeats == REPEATS_MAX
    assert not figure.is_trusted


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.5])
def test_a_figure_without_time_still_has_quartiles(seconds: float) -> None:
    clock = FakeTime()
    (figure,) = repeat_until_trusted(FakeSample(clock, repeat(1.0)), seconds=seconds, clock=clock)
    assert figure.repeats == REPEATS_LEAST


def test_of_quantities_measured_together_the_noisiest_decides() -> None:
    clock = FakeTime()
    steady, noisy = repeat_until_trusted(
        FakeSample(clock, repeat(5.0), cycle([1.0, 2.0, 3.0])), seconds=12, clock=clock
    )
    assert steady.repeats == noisy.repeats == 12
    assert steady.is_trusted
    assert not noisy.is_trusted


def test_what_a_measurement_raises_ends_it() -> None:
    def failing() -> Sequence[float]:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        repeat_until_trusted(failing, seconds=10, clock=FakeTime())


def test_a_figure_is_the_median_between_its_quartiles() -> None:
    figure = figure_of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (figure.low, figure.value, figure.high, figure.repeats) == (2.0, 3.0, 4.0, 5)


def test_a_step_that_ends_early_leaves_its_time_to_the_others() -> None:
    clock = FakeTime()
    budget = TimeBudget(100.0, 4, clock)
    assert budget.take() == 25.0
    clock.now_s += 10.0
    assert budget.take() == 30.0
    clock.now_s += 80.0
    assert budget.take() == pytest.approx(5.0)
    clock.now_s += 50.0
    assert budget.take() == 0.0
    assert budget.take() == 0.0  # one more than was planned
