"""Where an engine's cache is: in its own process, or in a node that other engines use as well.

| settings | cache |
|---|---|
| neither of the two below | in this process |
| `server_recv_port` | of the node that listens there |
| `start_node`, with or without the former | the same; the first engine that finds no node starts it, again if it dies |
"""

import json
import logging
from dataclasses import asdict, replace
from typing import Any

from tiercel import BlockGeometry, Cache, CacheConfig, CacheFacade, ConfigError, NodeClient, connect
from tiercel.connectors.replicas import settings_of_replica
from tiercel.connectors.vllm.logs import node_line, start_line
from tiercel.connectors.vllm.model import ModelBlocks
from tiercel.connectors.vllm.settings import ConnectorSettings
from tiercel.node.server.ensuring import NodeGuard, ensure_node

_logger = logging.getLogger(__name__)

_CONNECT_S = 30.0
"""Longest wait for a node that was just started to let this engine in."""


class OpenCache:
    """An engine's cache and what keeps it there.

    Attributes:
        cache: the cache.
    """

    def __init__(
        self, blocks: ModelBlocks, vllm_config: Any, settings: ConnectorSettings, *, has_ranks: bool = False
    ) -> None:
        """Open it; has_ranks: workers of other processes copy to and from its memory.

        Raises:
            ConfigError, TierError: as `Cache.open`; or the node keeps other blocks, or refuses this engine.
            DeadlineError: there is no node after `node_wait_s`.
            DeviceError: the node could not be started, or is of another release.
        """
        self._guard: NodeGuard | None = None
        self.cache: CacheFacade
        if settings.endpoint is None:
            # Rank and size are no help: vLLM makes engines of dense models forget them.
            config = settings_of_replica(settings.cache, vllm_config.parallel_config.data_parallel_index)
            cache = Cache.open(blocks.model, config, order=blocks.geometry.order, shares_memory=has_ranks)
            self.cache = cache
            _logger.info("%s", start_line(cache, config))
            return
        client = self._connect(blocks, settings)
        self.cache = client
        _logger.info("%s", node_line(client, str(settings.endpoint)))

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._guard is not None:
            self._guard.close()
        self.cache.close()

    def _connect(self, blocks: ModelBlocks, settings: ConnectorSettings) -> NodeClient:
        endpoint, wait_s = settings.endpoint, settings.node_wait_s
        assert endpoint is not None
        started = False
        config = replace(settings.cache, node_block_order=blocks.geometry.order)
        if settings.start_node:
            _logger.info("a node at %s is looked for, and started if there is none", endpoint)
            started = ensure_node(blocks.model, config, endpoint, timeout_s=wait_s)
            wait_s = _CONNECT_S
        else:
            told = "waiting up to %g s for the node at %s, whose settings have to begin with %s"
            _logger.info(told, wait_s, endpoint, _node_file(blocks))
        client = connect(str(endpoint), name=settings.client_name, wait_s=wait_s)
        try:
            _require_same(client.geometry, blocks, str(endpoint))
        except BaseException:
            client.close()
            raise
        if settings.given and not started:
            _logger.info("settings of the cache are the node's; not used here: %s", ", ".join(settings.given))
        if settings.start_node:
            self._guard = NodeGuard(
                lambda: client.connected,
                lambda give_up: _restart(blocks, config, settings, give_up),
            )
        return client


def _restart(blocks: ModelBlocks, config: CacheConfig, settings: ConnectorSettings, give_up: Any) -> None:
    assert settings.endpoint is not None
    ensure_node(blocks.model, config, settings.endpoint, timeout_s=settings.node_wait_s, give_up=give_up)


def _require_same(theirs: BlockGeometry, blocks: ModelBlocks, endpoint: str) -> None:
    """Raise ConfigError unless a node keeps the engine's blocks; it says what the node's settings have to be."""
    ours = blocks.geometry
    if theirs == ours:
        return
    told, wanted = theirs.fingerprint_parts(), ours.fingerprint_parts()
    differing = ", ".join(
        f"{name} = {told.get(name)!r}, not {wanted[name]!r}" for name in wanted if told.get(name) != wanted[name]
    )
    raise ConfigError(
        f"the node at {endpoint} keeps other blocks than this engine has: {differing}. Give this engine a node of its own, whose "
        f"settings begin with {_node_file(blocks)}, or let it start one with start_node"
    )


def _node_file(blocks: ModelBlocks) -> str:
    """What the settings file of a node for these blocks begins with."""
    document = {
        "model_config": {key: value for key, value in asdict(blocks.model).items() if value not in ("", ())},
        "cache_config": {
            "tokens_per_block": blocks.geometry.tokens_per_block,
            "node_block_order": blocks.geometry.order,
        },
    }
    return json.dumps(document)
