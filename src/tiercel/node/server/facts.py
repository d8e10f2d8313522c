"""A node's cache as a document: what each client is told when it is let in, and what a node is started with."""

from dataclasses import asdict

from tiercel.cache import ServedCache
from tiercel.config import SETTINGS, CacheConfig, ModelConfig
from tiercel.config.tenants import written_tenants
from tiercel.layout import SlotOrder
from tiercel.node.joining import CacheFacts, Region, Welcome

_KEPT_BACK = ("record_path", "status_socket", "metrics_port", "server_recv_port", "tenants")
"""Settings that concern the node alone, beside those that begin with `node_`. Tenants name the namespaces of others."""


def welcome(cache: ServedCache, model: ModelConfig, order: SlotOrder, *, client: int, token: bytes) -> Welcome:
    """Return what a client is answered to its `Hello`."""
    config = cache.config
    return Welcome(
        client=client,
        token=token,
        regions=[Region(memory.num_bytes, memory.resident, memory.unit_bytes) for memory in cache.shared_memory],
        facts=CacheFacts(model=_model(model), config=_shared(config), order=order, fingerprint=cache.fingerprint),
        calls_max=config.node_calls_max,
    )


def document(model: ModelConfig, config: CacheConfig) -> dict[str, object]:
    """Return a configuration document of a node: everything that is not a default."""
    return {"model_config": _model(model), "cache_config": _changed(config)}


def _model(model: ModelConfig) -> dict[str, object]:
    return {key: value for key, value in asdict(model).items() if value not in ("", ())}


def _changed(config: CacheConfig) -> dict[str, object]:
    values = {key: getattr(config, key) for key in SETTINGS}
    changed = {key: value for key, value in values.items() if value != SETTINGS[key].default}
    if config.tenant_list:
        changed["tenants"] = written_tenants(config.tenant_list)
    return changed


def _shared(config: CacheConfig) -> dict[str, object]:
    """What of the settings concerns a client."""
    return {
        key: value for key, value in _changed(config).items() if key not in _KEPT_BACK and not key.startswith("node_")
    }
