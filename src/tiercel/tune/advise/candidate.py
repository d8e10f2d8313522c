"""One configuration that is weighed: the settings that the search chooses, and what they are as a `CacheConfig`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tiercel.config import CacheConfig


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings of one cache, by the names of `CacheConfig` except for the capacities.

    Attributes:
        host_bytes, disk_bytes: capacity of a tier; 0 for no such tier.
        ssd_eviction_policy: always named, so that two candidates are equal exactly if they do the same.
    """

    host_bytes: int
    disk_bytes: int = 0
    tokens_per_block: int = 16
    eviction_policy: str = "lru"
    ssd_eviction_policy: str = "lru"
    ssd_admission: str = "through"
    ssd_write_budget_per_day: int | None = None
    evict_ratio: float = 0.0

    def changed(self, **values: Any) -> "Candidate":
        """Return the candidate with other values of some settings."""
        return replace(self, **values)

    def settled(self) -> "Candidate":
        """Return the candidate with what makes no difference at its defaults: settings of a tier that it does without."""
        without_disk = {} if self.disk_bytes else _DEFAULTS_OF_DISK
        without_host = {} if self.host_bytes else {"eviction_policy": "lru"}
        return self.changed(**without_disk, **without_host)

    @property
    def is_possible(self) -> bool:
        """Whether a cache can be so: there is a tier, and blocks can reach the disk."""
        if not self.host_bytes and not self.disk_bytes:
            return False
        return bool(self.host_bytes) or self.ssd_admission != "on_evict"

    def has_room(self, token_bytes: int) -> bool:
        """Whether each tier that there is holds a block."""
        block_bytes = token_bytes * self.tokens_per_block
        return all(size == 0 or size >= block_bytes for size in (self.host_bytes, self.disk_bytes))

    def config(self, directories: Sequence[str] = ()) -> CacheConfig:
        """Return the settings of a cache. Raises ConfigError."""
        return CacheConfig(**self.settings(directories))

    def settings(self, directories: Sequence[str] = ()) -> dict[str, Any]:
        """Return the settings by key, those of tiers in use only; capacities as sizes, exact to the byte."""
        settings: dict[str, Any] = {
            "enable_cpu": self.host_bytes > 0,
            "enable_ssd": self.disk_bytes > 0,
            "tokens_per_block": self.tokens_per_block,
        }
        if self.host_bytes:
            settings |= {"num_cpu_blocks": size_text(self.host_bytes), "eviction_policy": self.eviction_policy}
        settings["evict_ratio"] = self.evict_ratio
        if self.disk_bytes:
            settings |= {
                "num_ssd_blocks": size_text(self.disk_bytes),
                "ssd_eviction_policy": self.ssd_eviction_policy,
                "ssd_admission": self.ssd_admission,
            }
            if directories:
                settings["ssd_cache_dir"] = list(directories)
            if self.ssd_write_budget_per_day is not None:
                settings["ssd_write_budget_per_day"] = size_text(self.ssd_write_budget_per_day)
        return settings


_DEFAULTS_OF_DISK: dict[str, Any] = {
    "ssd_eviction_policy": "lru",
    "ssd_admission": "through",
    "ssd_write_budget_per_day": None,
}
_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

DIMENSIONS = tuple(field.name for field in fields(Candidate))
"""What is chosen, by name."""


def size_text(num_bytes: int) -> str:
    """Return a size as settings take it, exact: 68719476736 is "64GiB"."""
    for factor, unit in _UNITS:
        if num_bytes and num_bytes % factor == 0:
            return f"{num_bytes // factor}{unit}"
    return f"{num_bytes}B"
