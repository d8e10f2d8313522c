"""What moving and computing cost, learnt while the system runs.

Two models that `plan` compares: how long a tier takes to deliver bytes (a latency and a rate) and how long the engine takes
to prefill tokens (a quadratic). Both are fitted by least squares that forgets old observations, both can be read and both
are deterministic: time comes in with the observations, nothing here has a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferCost:
    """Time to bring blocks from a tier to the engine.

    Attributes:
        latency_s: time before the first byte of an idle tier.
        bytes_per_s: rate after that; infinite for a tier that costs nothing.
        queue_wait_s: time until the transfers already queued are done.
    """

    latency_s: float
    bytes_per_s: float
    queue_wait_s: float = 0.0

    def seconds(self, num_bytes: int) -> float:
        """Predict the time until `num_bytes` have arrived."""
        return self.queue_wait_s + self.latency_s + num_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True)
class PrefillCurve:
    """Time to compute tokens behind a cached prefix: fixed + linear per token + attention over what lies before each."""

    fixed_s: float = 0.0
    token_s: float = 0.0
    token_pair_s: float = 0.0

    def seconds(self, cached_tokens: int, new_tokens: int) -> float:
        """Predict the time to compute `new_tokens` behind `cached_tokens`; 0 for no tokens."""
        if new_tokens == 0:
            return 0.0
        # The pairs are written out: every lookup comes here twice.
        return self.fixed_s + new_tokens * (self.token_s + self.token_pair_s * (cached_tokens + 0.5 * new_tokens))


def _token_pairs(cached_tokens: int, new_tokens: int) -> float:
    return new_tokens * (cached_tokens + 0.5 * new_tokens)


class OnlineFit:
    """Least squares with exponential forgetting, coefficients never negative.

    Keeps the normal equations only, so an observation costs O(features^2) whatever came before. The observations are
    weighted by the inverse square of the measured value: it is relative errors that count, over four decades of sizes.
    In plain floats: for two or three features numpy's calls take ten times as long, on the way of every load's completion.
    """

    _FORGETTING = 0.98
    _PRIOR_WEIGHT = 0.01
    _RIDGE = 1e-9

    def __init__(self, prior: Sequence[float]) -> None:
        """Start from a guess.

        Args:
            prior: the coefficients assumed before anything was seen, one per feature; it decides between features that the
                observations cannot tell apart. 0 where nothing is assumed.
        """
        self._num_observations = 0
        self._prior_diagonal = [self._PRIOR_WEIGHT / value**2 if value > 0 else 0.0 for value in prior]
        self._prior_vector = [weight * value for weight, value in zip(self._prior_diagonal, prior, strict=True)]
        self._matrix = [[0.0] * len(prior) for _ in prior]
        self._vector = [0.0] * len(prior)
        self._coefficients = list(prior)

    @property
    def num_observations(self) -> int:
        return self._num_observations

    @property
    def coefficients(self) -> Sequence[float]:
        return self._coefficients

    def observe(self, features: Sequence[float], measured: float) -> None:
        """Take in one measurement. measured: > 0."""
        weight, kept = 1.0 / measured**2, self._FORGETTING
        for i, feature in enumerate(features):
            weighted = weight * feature
            self._matrix[i] = [kept * m + weighted * f for m, f in zip(self._matrix[i], features, strict=True)]
            self._vector[i] = kept * self._vector[i] + weighted * measured
        self._num_observations += 1
        self._coefficients = self._solve()

    def _solve(self) -> list[float]:
        """Solve for coefficients >= 0 by fixing negative ones at zero, one after another (active set; few features)."""
        size = len(self._vector)
        diagonal = [(1.0 + self._RIDGE) * self._matrix[i][i] + self._prior_diagonal[i] for i in range(size)]
        active = [i for i in range(size) if diagonal[i] > 0]
        result = [0.0] * size
        while active:
            # Scaled to a diagonal of ones: features differ by nine decades.
            scale = [diagonal[i] ** -0.5 for i in active]
            rows = [
                [1.0 if i == j else self._matrix[i][j] * scale[a] * scale[b] for b, j in enumerate(active)]
                + [(self._vector[i] + self._prior_vector[i]) * scale[a]]
                for a, i in enumerate(active)
            ]
            scaled = _eliminate(rows)
            least = min(range(len(active)), key=scaled.__getitem__)
            if scaled[least] >= 0:
                for a, i in enumerate(active):
                    result[i] = scaled[a] * scale[a]
                break
            active.pop(least)
        return result


def _eliminate(rows: list[list[float]]) -> list[float]:
    """Solve a positive definite system, given as rows of its matrix with the right side behind each. Changes the rows."""
    size = len(rows)
    for i, pivot in enumerate(rows):
        for row in rows[i + 1 :]:
            factor = row[i] / pivot[i]
            for j in range(i, size + 1):
                row[j] -= factor * pivot[j]
    solution = [0.0] * size
    for i in range(size - 1, -1, -1):
        rest = sum([rows[i][j] * solution[j] for j in range(i + 1, size)])
        solution[i] = (rows[i][size] - rest) / rows[i][i]
    return solution


class TransferCostModel:
    """Learns a tier's latency and rate from how long its transfers took."""

    _DECLINED_DECAY = 0.98

    def __init__(self, *, latency_s: float, bytes_per_s: float) -> None:
        self._fit = OnlineFit((latency_s, 1.0 / bytes_per_s))
        self._optimism = 1.0
        self._cost = self._estimate()

    def observe(self, num_bytes: int, seconds: float) -> None:
        """Take in one transfer. Transfers of nothing or in no time are left out."""
        if num_bytes > 0 and seconds > 0:
            self._fit.observe((1.0, float(num_bytes)), seconds)
            self._optimism = 1.0
            self._cost = self._estimate()

    def decline(self) -> None:
        """Note that a load was declined for its cost. Without news a bad estimate would stand for ever: each time it is
        believed a little less, until a load is tried again and observed."""
        self._optimism *= self._DECLINED_DECAY
        self._cost = self._estimate()

    @property
    def cost(self) -> TransferCost:
        """The estimate as of now, for an empty queue."""
        return self._cost

    def _estimate(self) -> TransferCost:
        latency_s, byte_s = (c * self._optimism for c in self._fit.coefficients)
        return TransferCost(latency_s, 1.0 / max(byte_s, 1e-15))


def check_prefill(cached_tokens: int, new_tokens: int, seconds: float) -> None:
    """Raise ValueError for the timing of a prefill with negative counts or a time that is not positive."""
    if cached_tokens < 0 or new_tokens <= 0 or not 0 < seconds < float("inf"):
        raise ValueError(
            f"a prefill needs cached_tokens >= 0, computed_tokens > 0 and finite seconds > 0, "
            f"got {cached_tokens}, {new_tokens} and {seconds}"
        )


class PrefillCostModel:
    """Learns an engine's prefill curve from the timings that it reports."""

    def __init__(self) -> None:
        self._fit = OnlineFit((0.0, 0.0, 0.0))
        self._curve = PrefillCurve()

    @property
    def num_observations(self) -> int:
        return self._fit.num_observations

    def observe(self, cached_tokens: int, new_tokens: int, seconds: float) -> None:
        """Take in one prefill. Raises as `check_prefill`."""
        check_prefill(cached_tokens, new_tokens, seconds)
        self._fit.observe((1.0, float(new_tokens), _token_pairs(cached_tokens, new_tokens)), seconds)
        self._curve = PrefillCurve(*self._fit.coefficients)

    @property
    def curve(self) -> PrefillCurve:
        """The estimate as of now; costs nothing as long as nothing was observed."""
        return self._curve
