"""What the operator asks for: limits on latency, room for the tiers, prices. Parsed from `key=value,key=value`.

A message names the option, the key, the value and the remedy, as settings' messages do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiercel.config import parse_size
from tiercel.config.messages import nearest, problem
from tiercel.errors import ConfigError

TIMES = tuple(f"{time}_{statistic}" for time in ("ttft", "e2e") for statistic in ("mean", "p50", "p90", "p95", "p99"))
"""The times that an outcome has, and that a limit can be set on: to the first token and to the last, by statistic."""

MONTH_H = 730.0
"""Hours of a month: what prices of memory and disk are quoted for."""

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(us|ms|s|min)", re.ASCII)
_DURATION_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)
_BUDGET_KEYS = ("host", "disk", "disk_writes")
_PRICE_KEYS = ("host", "disk", "gpu_hour")


@dataclass(frozen=True, kw_only=True)
class Slo:
    """Most seconds of each of `TIMES` that is limited; empty for no limit."""

    limits_s: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{name} <= {limit:g} s" for name, limit in self.limits_s.items()) or "none"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Most that the tiers may take.

    Attributes:
        host_bytes, disk_bytes: capacity; 0 for no such tier.
        disk_writes_per_day: bytes that may be written to disk in a day; None for no limit.
    """

    host_bytes: int
    disk_bytes: int = 0
    disk_writes_per_day: int | None = None


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What things cost, in any one currency.

    Attributes:
        gpu_hour: one GPU for an hour.
        host_gib_month, disk_gib_month: a GiB of memory or disk for a month of `MONTH_H` hours.
    """

    gpu_hour: float
    host_gib_month: float = 0.0
    disk_gib_month: float = 0.0


def parse_slo(text: str) -> Slo:
    """Read limits such as "ttft_p99=2s,e2e_mean=20s". Raises ConfigError."""
    pairs = _pairs("--slo", text, TIMES)
    return Slo(limits_s={key: _seconds(f"--slo {key}", value) for key, value in pairs.items()})


def parse_budget(text: str) -> Budget:
    """Read capacities such as "host=256GiB,disk=2TiB,disk_writes=5TB". Raises ConfigError."""
    pairs = _pairs("--budget", text, _BUDGET_KEYS)
    sizes = {key: 0 if value == "0" else parse_size(f"--budget {key}", value) for key, value in pairs.items()}
    if not sizes.get("host") and not sizes.get("disk"):
        raise problem("--budget", text, "leaves no tier", "give host=SIZE, disk=SIZE or both, such as host=64GiB")
    if "disk_writes" in sizes and not sizes.get("disk"):
        raise problem("--budget disk_writes", pairs["disk_writes"], "limits writes to a disk that has no room",
                      "add disk=SIZE, or leave it out")  # fmt: skip
    if "disk_writes" in sizes and sizes["disk_writes"] < 2**20:
        raise problem("--budget disk_writes", pairs["disk_writes"], "must be at least 1MiB a day",
                      "give disk=0 to do without writes")  # fmt: skip
    return Budget(
        host_bytes=sizes.get("host", 0),
        disk_bytes=sizes.get("disk", 0),
        disk_writes_per_day=sizes.get("disk_writes"),
    )


def parse_prices(text: str, budget: Budget) -> Prices:
    """Read prices such as "host=3,disk=0.08,gpu_hour=2.5": a GiB a month, and a GPU an hour.

    Raises:
        ConfigError: a price is wrong, or one that the budget needs is missing.
    """
    pairs = _pairs("--prices", text, _PRICE_KEYS)
    needed = {"gpu_hour": True, "host": budget.host_bytes > 0, "disk": budget.disk_bytes > 0}
    for key, is_needed in needed.items():
        if is_needed and key not in pairs:
            raise problem(
                "--prices", text, f"lacks {key}, so costs cannot be told", f"add {key}=NUMBER; 0 where it is free"
            )
    values = {key: _price(f"--prices {key}", value) for key, value in pairs.items()}
    return Prices(
        gpu_hour=values["gpu_hour"],
        host_gib_month=values.get("host", 0.0),
        disk_gib_month=values.get("disk", 0.0),
    )


def _pairs(option: str, text: str, known: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value:
            raise problem(
                option, part.strip(), "must be KEY=VALUE, with commas between", f"known keys: {', '.join(known)}"
            )
        if key not in known:
            hint = nearest(key, known) or f"known are {', '.join(known)}"
            raise ConfigError(f"{option} {key} = {value!r}: unknown key; {hint}")
        if key in pairs:
            raise problem(f"{option} {key}", value, f"is given twice, {pairs[key]!r} before", "give it once")
        pairs[key] = value
    return pairs


def _seconds(key: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise problem(key, text, "must be a time with its unit", 'write it as "2s" or "500ms" (us, ms, s, min)')
    seconds = float(match[1]) * _DURATION_S[match[2]]
    if seconds <= 0:
        raise problem(key, text, "must be above 0", "leave it out for no limit")
    return seconds


def _price(key: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise problem(key, text, "must be a number, 0 or more", "write it without a currency, such as 2.50")
    return float(text)
