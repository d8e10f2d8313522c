"""Traffic told by numbers, for the tests of auto-tuning: what a look would count, by what stands."""

import random
from collections.abc import Callable
from dataclasses import fields

from tests.helpers.small_engine import TOKENS_PER_BLOCK
from tiercel.control import Admission, ControlSettings, Tuned
from tiercel.control.tuning import Change, Counts, Limits, TunerState, look, start
from tiercel.tiers.base import TierName

LIMITS = Limits()
LOOKED_UP = 10_000

Traffic = Callable[[Tuned], Counts]
"""What a window adds to the counts while that stands."""


def settings(**values: object) -> ControlSettings:
    """Host and disk tier, tuned."""
    chosen: dict[str, object] = {
        "capacities": {TierName.HOST: 1000, TierName.DISK: 10_000},
        "tokens_per_block": TOKENS_PER_BLOCK,
        "block_bytes": 1 << 20,
        "auto_tune": True,
        **values,
    }
    return ControlSettings(**chosen)  # type: ignore[arg-type]


def counts(
    *,
    hits: float = 0.5,
    written: float = 0.2,
    read: float = 0.2,
    evicts: bool = True,
    cramped: float = 0.0,
    age_s: float = 100.0,
) -> Counts:
    """A window of traffic: shares of the blocks looked up, and of the stores."""
    return Counts(
        lookups=LIMITS.window_lookups,
        looked_up=LOOKED_UP,
        hits=round(hits * LOOKED_UP),
        disk_hits=round(read * LOOKED_UP),
        disk_written=round(written * LOOKED_UP),
        disk_read=round(read * LOOKED_UP),
        disk_evicted=500 if evicts else 0,
        host_evicted=1000 if evicts else 0,
        host_evicted_age_s=1000 * age_s if evicts else 0.0,
        stores=1000,
        cramped=round(cramped * 1000),
    )


def plus(one: Counts, other: Counts) -> Counts:
    return Counts(**{field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(Counts)})


class Run:
    """A tuner and its traffic: a look a window."""

    def __init__(self, traffic: Traffic, limits: Limits = LIMITS, **values: object) -> None:
        self.traffic = traffic
        self.limits = limits
        self.state: TunerState = start(settings(**values))
        self.total = Counts()
        self.now_s = 0.0
        self.changes: list[tuple[float, Change]] = []
        self.look()

    @property
    def admission(self) -> Admission:
        return self.state.tuned.admission

    @property
    def actions(self) -> list[str]:
        return [change.action.value for _, change in self.changes]

    def look(self) -> None:
        self.state, change = look(self.state, self.total, self.now_s, self.limits)
        if change is not None:
            self.changes.append((self.now_s, change))

    def windows(self, number: int) -> "Run":
        """Let windows of traffic pass."""
        for _ in range(number):
            self.total = plus(self.total, self.traffic(self.state.tuned))
            self.now_s += self.limits.window_s
            self.look()
        return self


def noisy(dice: random.Random, value: float, spread: float) -> float:
    return min(1.0, max(0.0, value + dice.gauss(0, spread)))
