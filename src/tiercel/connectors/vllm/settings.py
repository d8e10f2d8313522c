"""The connector's settings out of `kv_connector_extra_config`: its own keys here, every other key is the cache's.

    {"num_cpu_blocks": "64GiB", "enable_ssd": true, "ssd_cache_dir": "/data/kv", "load_timeout_s": 5}

The cache's keys win over `config_file`, and both over TIERCEL_ variables only where the cache's own rule says so: keywords
before environment before file before defaults.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from tiercel import CacheConfig, ConfigError, load_config

_OWN_KEYS = ("config_file", "model_id", "weights_epoch", "load_timeout_s", "allow_untested_vllm")
_TIMEOUT_S_MAX = 3600.0
_SHARES = {"num_cpu_blocks": "25%", "num_ssd_blocks": "50%"}
"""Capacities where nobody named one: of what memory and disks have free."""


@dataclass(frozen=True, kw_only=True)
class ConnectorSettings:
    """Settings of one engine's connector.

    Attributes:
        cache: settings of the cache.
        model_id: name of the weights, for machines that share blocks; None lets it be found out.
        weights_epoch: version of the weights under that name.
        load_timeout_s: longest time that a request waits for Tiercel, from its first lookup to staged blocks, and again
            from there to the engine's memory.
        allow_untested_vllm: start with a vLLM outside the supported range.
    """

    cache: CacheConfig
    model_id: str | None = None
    weights_epoch: str = ""
    load_timeout_s: float = 5.0
    allow_untested_vllm: bool = False


def read_settings(
    extra: Mapping[str, Any], *, block_size: int, environ: Mapping[str, str] | None = None
) -> ConnectorSettings:
    """Read what the user set.

    Args:
        extra: `kv_connector_extra_config`.
        block_size: tokens of one of vLLM's blocks, which the cache's blocks are.
        environ: variables to read instead of this process's.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    _require_known(extra)
    own = {key: value for key, value in extra.items() if key in _OWN_KEYS}
    overrides = {key: value for key, value in extra.items() if key not in _OWN_KEYS}
    file = _text(own, "config_file", None)
    loaded = load_config(file, environ=environ, **overrides)
    origin = loaded.sources["tokens_per_block"]
    if origin != "default" and loaded.config.tokens_per_block != block_size:
        raise ConfigError(
            f"tokens_per_block = {loaded.config.tokens_per_block} (from {origin}): vLLM's block_size is {block_size}, and "
            f"blocks are its blocks; leave tokens_per_block out, or set --block-size"
        )
    _require_disk_tier(extra, loaded.sources)
    shares: dict[str, Any] = {key: share for key, share in _SHARES.items() if loaded.sources[key] == "default"}
    timeout_s = own.get("load_timeout_s", ConnectorSettings.load_timeout_s)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= _TIMEOUT_S_MAX:
        raise ConfigError(
            f"load_timeout_s = {timeout_s!r}: must be a number above 0, at most {_TIMEOUT_S_MAX:.0f} (seconds)"
        )
    allow = own.get("allow_untested_vllm", False)
    if not isinstance(allow, bool):
        raise ConfigError(f"allow_untested_vllm = {allow!r}: must be true or false")
    return ConnectorSettings(
        cache=replace(loaded.config, tokens_per_block=block_size, **shares),
        model_id=_text(own, "model_id", None),
        weights_epoch=_text(own, "weights_epoch", "") or "",
        load_timeout_s=float(timeout_s),
        allow_untested_vllm=allow,
    )


def _require_known(extra: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key that is most like one of the connector's; what the cache does not know, the cache refuses."""
    known = [field.name for field in fields(CacheConfig)]
    for key in extra:
        if key not in known and key not in _OWN_KEYS:
            nearest = difflib.get_close_matches(key, [*known, *_OWN_KEYS], n=1)
            if nearest and nearest[0] in _OWN_KEYS:
                raise ConfigError(f"{key} (from kv_connector_extra_config): unknown key; did you mean {nearest[0]!r}?")


def _require_disk_tier(extra: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """Raise ConfigError if a disk is named and nobody said whether there is to be a disk tier."""
    named = next((key for key in ("ssd_cache_dir", "num_ssd_blocks") if key in extra), None)
    if named is not None and sources["enable_ssd"] == "default":
        raise ConfigError(
            f"{named} = {extra[named]!r}: has no effect while enable_ssd is false, its default; set enable_ssd to true, or to "
            f"false beside it to keep the disk tier off"
        )


def _text(own: Mapping[str, Any], key: str, default: str | None) -> str | None:
    value = own.get(key, default)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{key} = {value!r}: must be text")
    return value
