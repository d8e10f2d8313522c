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
from tiercel.node.endpoint import LocalEndpoint, default_endpoint, parse_endpoint

_OWN_KEYS = (
    "config_file",
    "model_id",
    "weights_epoch",
    "load_timeout_s",
    "allow_untested_vllm",
    "start_node",
    "node_wait_s",
    "client_name",
)
_NOT_THE_NODES = ("server_recv_port", "tokens_per_block")
"""Settings of the cache that an engine has a use for, though its cache is a node's."""
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
        endpoint: the node whose cache is used; None: the cache is this process's.
        start_node: start the node if there is none.
        node_wait_s: longest wait for the node at the start.
        client_name: what the node knows this engine by.
        given: keys of the cache that somebody set, and that are the node's.
    """

    cache: CacheConfig
    model_id: str | None = None
    weights_epoch: str = ""
    load_timeout_s: float = 5.0
    allow_untested_vllm: bool = False
    endpoint: LocalEndpoint | None = None
    start_node: bool = False
    node_wait_s: float = 120.0
    client_name: str = "vllm"
    given: tuple[str, ...] = ()


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
    starts = _flag(own, "start_node")
    endpoint = _endpoint(loaded.config.server_recv_port, starts)
    given = (key for key, source in loaded.sources.items() if source != "default" and key not in _NOT_THE_NODES)
    return ConnectorSettings(
        cache=replace(loaded.config, tokens_per_block=block_size, **shares),
        model_id=_text(own, "model_id", None),
        weights_epoch=_text(own, "weights_epoch", "") or "",
        load_timeout_s=_seconds(own, "load_timeout_s"),
        allow_untested_vllm=_flag(own, "allow_untested_vllm"),
        endpoint=endpoint,
        start_node=starts,
        node_wait_s=_seconds(own, "node_wait_s"),
        client_name=_text(own, "client_name", None) or ConnectorSettings.client_name,
        given=() if endpoint is None else tuple(given),
    )


def _endpoint(named: str | None, starts: bool) -> LocalEndpoint | None:
    if named is None:
        return default_endpoint() if starts else None
    endpoint = parse_endpoint(named)
    if not isinstance(endpoint, LocalEndpoint):
        raise ConfigError(
            f"server_recv_port = {named!r}: an engine and its node share memory, so both are on one host; give ipc:///DIRECTORY"
        )
    return endpoint


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


def _seconds(own: Mapping[str, Any], key: str) -> float:
    value = own.get(key, getattr(ConnectorSettings, key))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _TIMEOUT_S_MAX:
        raise ConfigError(f"{key} = {value!r}: must be a number above 0, at most {_TIMEOUT_S_MAX:.0f} (seconds)")
    return float(value)


def _flag(own: Mapping[str, Any], key: str) -> bool:
    value = own.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} = {value!r}: must be true or false")
    return value


def _text(own: Mapping[str, Any], key: str, default: str | None) -> str | None:
    value = own.get(key, default)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{key} = {value!r}: must be text")
    return value
