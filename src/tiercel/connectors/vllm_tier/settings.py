"""From the keys of a tier's entry in `secondary_tiers` to a cache's settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from tiercel.config import CacheConfig, load_settings
from tiercel.config.messages import problem
from tiercel.connectors.replicas import settings_of_replica

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


def read_settings(given: Mapping[str, object], *, replica: int) -> TierSettings:
    """Check a tier's keys.

    Args:
        given: the entry's keys, those that vLLM reads itself ignored.
        replica: number of this data-parallel replica.

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
    return TierSettings(config=settings_of_replica(config, replica), model_revision=revision)
