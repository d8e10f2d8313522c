"""What moving and computing cost, learnt while the system runs.

Two models that `plan` compares: how long a tier takes to deliver bytes (a latency and a rate) and how long the engine takes
to prefill tokens (a quadratic). Both are fitted by least squares that forgets old observations (native, as every load's
completion waits for it), both can be read and both are deterministic: time comes in with the observations, nothing here has a
clock.
"""

from dataclasses import dataclass

from tiercel._native import OnlineFit

_SECONDS = (1e-100, 1e100)
"""Times between which observations can be weighed: the square of another one is no number."""


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


class TransferCostModel:
    """Learns a tier's latency and rate from how long its transfers took."""

    _DECLINED_DECAY = 0.98

    def __init__(self, *, latency_s: float, bytes_per_s: float) -> None:
        self._fit = OnlineFit((latency_s, 1.0 / bytes_per_s))
        self._optimism = 1.0
        self._cost = self._estimate()

    def observe(self, num_bytes: int, seconds: float) -> None:
        """Take in one transfer. Those of nothing or in no time are left out; one that was held up counts for little, as it is
        relative errors that are fitted."""
        if num_bytes > 0 and _SECONDS[0] <= seconds <= _SECONDS[1]:
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
    """Raise ValueError for the timing of a prefill with negative counts or a time that is none."""
    if cached_tokens < 0 or new_tokens <= 0 or not _SECONDS[0] <= seconds <= _SECONDS[1]:
        raise ValueError(
            f"a prefill needs cached_tokens >= 0, computed_tokens > 0 and seconds of {_SECONDS[0]:g} to {_SECONDS[1]:g}, "
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
