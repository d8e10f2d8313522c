"""The fit of learnt costs against the same arithmetic in Python's floats: equal to the last bit, at whatever sizes."""

import numpy as np
import pytest
from hypothesis import given, note, seed, settings
from hypothesis import strategies as st

from tiercel._native import OnlineFit


class PlainFit:
    """Weighted normal equations, solved by elimination, without the coefficients that would be negative."""

    def __init__(self, prior: list[float]) -> None:
        self.prior_diagonal = [0.01 / value**2 if value > 0 else 0.0 for value in prior]
        self.prior_vector = [weight * value for weight, value in zip(self.prior_diagonal, prior, strict=True)]
        self.matrix = [[0.0] * len(prior) for _ in prior]
        self.vector = [0.0] * len(prior)

    def observe(self, features: list[float], measured: float) -> list[float]:
        weight = 1.0 / measured**2
        for i, feature in enumerate(features):
            weighted = weight * feature
            self.matrix[i] = [0.98 * m + weighted * f for m, f in zip(self.matrix[i], features, strict=True)]
            self.vector[i] = 0.98 * self.vector[i] + weighted * measured
        return self.solve()

    def solve(self) -> list[float]:
        size = len(self.vector)
        diagonal = [(1.0 + 1e-9) * self.matrix[i][i] + self.prior_diagonal[i] for i in range(size)]
        active = [i for i in range(size) if diagonal[i] > 0]
        result = [0.0] * size
        while active:
            scale = [diagonal[i] ** -0.5 for i in active]
            rows = [
                [1.0 if i == j else self.matrix[i][j] * scale[a] * scale[b] for b, j in enumerate(active)]
                + [(self.vector[i] + self.prior_vector[i]) * scale[a]]
                for a, i in enumerate(active)
            ]
            scaled = eliminate(rows)
            least = min(range(len(active)), key=scaled.__getitem__)
            if scaled[least] >= 0:
                for a, i in enumerate(active):
                    result[i] = scaled[a] * scale[a]
                break
            active.pop(least)
        return result


def eliminate(rows: list[list[float]]) -> list[float]:
    size = len(rows)
    for i, pivot in enumerate(rows):
        for row in rows[i + 1 :]:
            factor = row[i] / pivot[i]
            for j in range(i, size + 1):
                row[j] -= factor * pivot[j]
    solution = [0.0] * size
    for i in range(size - 1, -1, -1):
        rest = 0.0  # not by `sum`, which rounds otherwise from one version of Python to the next
        for j in range(i + 1, size):
            rest += rows[i][j] * solution[j]
        solution[i] = (rows[i][size] - rest) / rows[i][i]
    return solution


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 2**32 - 1), size=st.integers(1, 4), has_prior=st.booleans())
@seed(20261122)
def test_a_fit_is_that_of_plain_floats_to_the_last_bit(number: int, size: int, has_prior: bool) -> None:
    note(f"seed {number}")
    rng = np.random.default_rng(number)
    truth = rng.choice([0.0, 1.0], size, p=[0.2, 0.8]) * 10 ** rng.uniform(-12, 1, size)
    prior = (10 ** rng.uniform(-12, 1, size)).tolist() if has_prior else [0.0] * size
    fit, plain = OnlineFit(prior), PlainFit(prior)
    assert fit.coefficients == prior
    for count in range(1, 80):
        features = [1.0, *(10 ** rng.uniform(0, 9, size - 1)).tolist()]
        measured = float(np.dot(truth, features)) * rng.uniform(0.5, 1.5) + 1e-9
        fit.observe(features, measured)
        assert fit.coefficients == plain.observe(features, measured), count
        assert fit.num_observations == count


def test_a_fit_forgets_what_holds_no_longer() -> None:
    fit = OnlineFit([50e-6, 1e-10])
    for rate in (1e9, 4e9):
        for num_bytes in [1e5, 1e6, 1e7, 1e8] * 150:
            fit.observe([1.0, num_bytes], 1e-4 + num_bytes / rate)
    assert fit.coefficients == pytest.approx([1e-4, 1 / 4e9], rel=0.01)


def test_coefficients_are_never_negative() -> None:
    fit = OnlineFit([0.0, 0.0])
    for size in (1.0, 2.0, 3.0):
        fit.observe([1.0, size], 4.0 - size)
    assert min(fit.coefficients) == 0.0


@pytest.mark.parametrize("prior", [[], [1.0] * 5])
def test_a_fit_has_one_to_four_coefficients(prior: list[float]) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        OnlineFit(prior)


def test_an_observation_with_other_features_changes_nothing() -> None:
    fit = OnlineFit([1.0, 2.0])
    with pytest.raises(ValueError, match="one feature for each"):
        fit.observe([1.0], 1.0)
    assert (fit.num_observations, fit.coefficients) == (0, [1.0, 2.0])
