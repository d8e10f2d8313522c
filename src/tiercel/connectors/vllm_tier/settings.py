"""From the keys of a tier's entry in `secondary_tiers` to a cache's settings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tiercel.config import CacheConfig, load_settings
from tiercel.config.messages import problem

_ORIGIN = "secondary_tiers"

_OF_VLLM = ("type", "module_path", "backpressure", "locality")
"""Keys that vLLM reads itself."""


@dataclass(frozen=True, kw_only=True)
class TierSettings:
    """What a tier is opened with.

    Attributes:
        config: the cache's settings.
        model_revision: the user's name for the version of the weights.
    """

    config: CacheConfig
    model_revision: str | None


def read_settings(given: Mapping[str, object], *, replica: int | None) -> TierSettings:
    """Check a tier's keys.

    Args:
        given: the entry's keys, those that vLLM reads itself ignored.
        replica: number of this data-parallel replica, None if there is one only. Each has a folder of its own, as each has a
            process of its own that locks it.

    Raises:
        ConfigError: a key or value is wrong; the message names both and a remedy.
    """
    settings = {key: value for key, value in given.items() if key not in _OF_VLLM}
    revision = settings.pop("model_revision", None)
    if revision is not None and (not isinstance(revision, str) or not revision):
        raise problem(
            "model_revision", revision, "must be text, not empty", "name the weights' commit or version", _ORIGIN
        )
    if settings.get("enable_cpu") not in (None, False):
        raise problem("enable_cpu", settings["enable_cpu"], "must be false: host memory is vLLM's own (cpu_bytes_to_use)",
                      "leave it out", _ORIGIN)  # fmt: skip
    config = load_settings({"enable_ssd": True, **settings, "enable_cpu": False}, _ORIGIN).config
    if replica is not None:
        config = replace(config, ssd_cache_dir=[str(path / f"replica{replica}") for path in config.ssd_cache_dirs])
    return TierSettings(config=config, model_revision=revision)
