"""The settings of a cache, as a user gives them, and what must hold between them.

`areas` declares each setting; `load` fills a `CacheConfig` from files and the environment; `resolve` turns it into the
blocks and bytes that the tiers, the transfer and the facade are built from. A `CacheConfig` that exists is valid.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tiercel.config.areas.capacity import CapacitySettings
from tiercel.config.areas.gpu import GpuSettings
from tiercel.config.areas.moving import MovingSettings
from tiercel.config.areas.node import NodeSettings
from tiercel.config.areas.policy import PolicySettings
from tiercel.config.areas.sight import SightSettings
from tiercel.config.messages import StrictKeywords, problem
from tiercel.config.model import ModelConfig
from tiercel.config.paths import expanded
from tiercel.config.resolved import ResolvedConfig, Room, resolve_sizes
from tiercel.config.settings import Setting, settings_of
from tiercel.config.sizes import is_share

AREAS: tuple[type, ...] = (CapacitySettings, PolicySettings, MovingSettings, GpuSettings, SightSettings, NodeSettings)
"""The groups that settings are declared in, in the order of the reference page."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig(
    NodeSettings, SightSettings, GpuSettings, MovingSettings, PolicySettings, CapacitySettings, StrictKeywords
):
    """Settings of one cache; docs/configuration.md describes each.

    Raises:
        ConfigError: a key is unknown, or a value is out of its range or contradicts another; the message names the key
            and a remedy.
    """

    def __post_init__(self) -> None:
        for key, described in SETTINGS.items():
            object.__setattr__(self, key, described.check(getattr(self, key)))
        self._check_relations()

    def _check_relations(self) -> None:
        if not self.enable_cpu and not self.enable_ssd:
            raise problem("enable_cpu", False, "must be true when enable_ssd is false: no tier would be left",
                          "enable one of them; to run without loading, set load_policy to never")  # fmt: skip
        if self.ssd_admission == "on_evict" and not self.enable_cpu:
            raise problem("ssd_admission", "on_evict", "must be another one when enable_cpu is false: nothing would leave "
                          "host memory, so nothing would reach the disk", "use through or on_second_hit")  # fmt: skip
        directories = self.ssd_cache_dirs
        stop = self.evict_stop_threshold
        if stop is not None and stop >= self.evict_start_threshold:
            raise problem("evict_stop_threshold", stop, f"must be below evict_start_threshold = {self.evict_start_threshold:g}",
                          "lower it, or leave it out")  # fmt: skip
        if self.enable_ssd and not directories:
            raise problem("ssd_cache_dir", self.ssd_cache_dir, "must name a directory when enable_ssd is true",
                          "name one for each device")  # fmt: skip
        if self.evict_stop_threshold is None and self.evict_ratio >= self.evict_start_threshold:
            raise problem("evict_ratio", self.evict_ratio, f"must be below evict_start_threshold = "
                          f"{self.evict_start_threshold:g}: eviction would stop at the difference",
                          "lower it, or give evict_stop_threshold")  # fmt: skip
        if len({os.path.realpath(path) for path in directories}) != len(directories):  # links have two names, too
            raise problem("ssd_cache_dir", self.ssd_cache_dir, "must name each directory once", "remove the repetition")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "CacheConfig":
        """Read a YAML or JSON file; the environment is not looked at. Raises ConfigError."""
        from tiercel.config.load import load_config

        return load_config(path, environ={}).config

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "CacheConfig":
        """Read TIERCEL_ variables of this process, or of a mapping. Raises ConfigError."""
        from tiercel.config.load import load_config

        return load_config(environ=environ).config

    @property
    def ssd_cache_dirs(self) -> tuple[Path, ...]:
        """The directories of `ssd_cache_dir`, in order."""
        given = self.ssd_cache_dir.split(";") if isinstance(self.ssd_cache_dir, str) else self.ssd_cache_dir
        return tuple(expanded("ssd_cache_dir", entry.strip()) for entry in given if entry.strip())

    @property
    def arena_directory(self) -> Path | None:
        """The directory of `cpu_arena_dir`; None if the host tier ends with the process, or is off."""
        given = self.cpu_arena_dir if self.enable_cpu else None
        return None if given is None else expanded("cpu_arena_dir", given)

    @property
    def shares(self) -> tuple[str, ...]:
        """The capacities of tiers in use that are a share of what the machine has, such as "80%"."""
        tiers = {"num_cpu_blocks": self.enable_cpu, "num_ssd_blocks": self.enable_ssd}
        return tuple(key for key, used in tiers.items() if used and is_share(getattr(self, key)))

    def resolve(self, model: ModelConfig, room: Room | None = None) -> ResolvedConfig:
        """Return these settings in blocks and bytes for one model.

        Args:
            model: the model.
            room: what the machine has, needed where a capacity is a share of it; `check_resources` asks for it.

        Raises:
            ConfigError: a capacity is less than one block, or the model is one that this version cannot store.
        """
        model.require_full_attention()
        return resolve_sizes(self, model, room)


SETTINGS: dict[str, Setting] = settings_of(CacheConfig)
"""Every setting of CacheConfig by key, in order."""
