"""What the two roles of one engine's connector share: the cache, the engine's memory, running transfers.

vLLM makes a worker role, which gets the KV tensors, and then a scheduler role. Where both live in one process they meet here,
under the engine's id: the worker opens the cache when it is given its tensors, whichever role leaves last closes it, and vLLM
calls both from one thread. Where workers have processes of their own, the scheduler's role opens the cache for what they
described, and is alone here.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiercel import CacheFacade, ConfigError, Ticket, TierName
from tiercel.connectors.vllm.facts import whole_group
from tiercel.connectors.vllm.failures import Failures
from tiercel.connectors.vllm.model import ModelBlocks, describe_model
from tiercel.connectors.vllm.opening import OpenCache
from tiercel.connectors.vllm.pages import distinct_layers, map_memory
from tiercel.connectors.vllm.reach import LocalReach, RankReach, Reach, meeting_place
from tiercel.connectors.vllm.settings import ConnectorSettings
from tiercel.connectors.vllm.tally import Tally

_engines: dict[str, "SharedEngine"] = {}
_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class RunningLoad:
    """A load and the engine's blocks that vLLM counts on."""

    ticket: Ticket
    block_ids: tuple[int, ...]


class SharedEngine:
    """One engine's cache and what runs on it.

    Attributes:
        cache: None until the worker has registered its tensors.
        tally: what this engine looked up, loaded and stored.
        reach: the engine's KV memory; None until it is known.
        loads: running loads, by request.
        blocks_lost: of loads that have ended: blocks that did not arrive, where there are any.
        stores: store tickets that may still read a request's blocks, by request.
        orders_open: stores of a request that were ordered and not launched yet.
        restart_at: the block from which a request's stores begin anew, because what was ordered was not stored.
        held: finished requests whose blocks vLLM keeps for a store, and since when, the first first.
    """

    def __init__(self, engine_id: str) -> None:
        self.engine_id = engine_id
        self._opened: OpenCache | None = None
        self.cache: CacheFacade | None = None
        self.tally = Tally()
        self.reach: Reach | None = None
        self.failures = Failures(self.tally)
        self.loads: dict[str, RunningLoad] = {}
        self.blocks_lost: dict[str, int] = {}
        self.stores: dict[str, list[Ticket]] = {}
        self.orders_open: dict[str, int] = {}
        self.restart_at: dict[str, int] = {}
        self.held: dict[str, float] = {}
        self.num_roles = 0

    @property
    def has_host_tier(self) -> bool:
        """Whether blocks on disk can be staged in memory first."""
        return self.cache is not None and any(
            tier.name == TierName.HOST.name.lower() for tier in self.cache.stats().tiers
        )

    def reads_source(self, request_id: str) -> bool:
        """Whether a store of this request was ordered, or still reads its blocks. Forgets those that do not."""
        running = [ticket for ticket in self.stores.get(request_id, ()) if not ticket.source_free]
        if running:
            self.stores[request_id] = running
        else:
            self.stores.pop(request_id, None)
        return bool(running) or self.orders_open.get(request_id, 0) > 0

    def close_order(self, request_id: str) -> None:
        """Note that an ordered store of this request was launched, or never will be."""
        self.orders_open[request_id] -= 1
        if not self.orders_open[request_id]:
            del self.orders_open[request_id]

    def open(
        self,
        vllm_config: Any,
        kv_cache_config: Any,
        kv_caches: Mapping[str, Any],
        settings: ConnectorSettings,
        *,
        version: str,
    ) -> None:
        """Describe the engine's memory and open the cache for it, or take the memory anew for the cache that is open.

        Raises:
            ConfigError, TierError: as `Cache.open`; or the tensors are not laid out as any known backend's.
        """
        layers = distinct_layers(whole_group(kv_cache_config).layer_names, kv_caches)
        blocks = describe_model(vllm_config, kv_cache_config, layers, settings, version)
        cache = self._open_cache(blocks, vllm_config, settings, has_ranks=False)
        try:
            memory = map_memory(cache.geometry, layers, kv_cache_config.num_blocks, settings.cache.cpu_copy_threads)
            if memory.device != "cpu":
                cache.devices.attach(memory)
        except BaseException:
            self.close()
            raise
        self.reach = LocalReach(memory)

    def open_for_ranks(self, blocks: ModelBlocks, vllm_config: Any, settings: ConnectorSettings) -> None:
        """Open the cache for what the workers described and let them join, or let them join the cache that is open anew.

        Raises:
            ConfigError, TierError: as `Cache.open`; or a worker does not fit.
            DeviceError, DeadlineError, OSError: a worker could not join.
        """
        cache = self._open_cache(blocks, vllm_config, settings, has_ranks=True)
        try:
            if self.reach is not None:
                self.reach.close()
            num_ranks = int(vllm_config.parallel_config.tensor_parallel_size)
            self.reach = RankReach(cache, num_ranks, meeting_place(vllm_config))
        except BaseException:
            self.close()
            raise

    def _open_cache(
        self, blocks: ModelBlocks, vllm_config: Any, settings: ConnectorSettings, *, has_ranks: bool
    ) -> CacheFacade:
        if self.cache is None:
            self._opened = OpenCache(blocks, vllm_config, settings, has_ranks=has_ranks)
            self.cache = self._opened.cache
            self.failures.cache = self.cache
        return self.cache

    def require_reach(self) -> Reach:
        """Return the engine's memory, which is known before the first step."""
        assert self.reach is not None, "vLLM registers its KV caches before the first step"
        return self.reach

    def require_cache(self) -> CacheFacade:
        """Return the cache.

        Raises:
            ConfigError: the worker has not opened it in this process.
        """
        if self.cache is None:
            raise ConfigError(
                "TiercelConnector's scheduler finds no worker in its process; set --distributed-executor-backend to uni or mp"
            )
        return self.cache

    def close(self) -> None:
        """Close the cache. Idempotent."""
        opened, self._opened, self.cache = self._opened, None, None
        reach, self.reach = self.reach, None
        self.failures.cache = None
        if reach is not None:
            reach.close()
        if opened is not None:
            opened.close()


def join(engine_id: str) -> SharedEngine:
    """Take part in an engine, as one of its roles. Ended with `leave`."""
    with _lock:
        engine = _engines.setdefault(engine_id, SharedEngine(engine_id))
        engine.num_roles += 1
        return engine


def leave(engine: SharedEngine) -> None:
    """End a part in an engine; the last one closes its cache."""
    with _lock:
        engine.num_roles -= 1
        last = engine.num_roles <= 0
        if last:
            _engines.pop(engine.engine_id, None)
    if last:
        engine.close()
