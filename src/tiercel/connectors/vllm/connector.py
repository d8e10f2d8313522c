"""What vLLM calls: each call is handed to the half of its role. No decision is made here.

vLLM loads the class by `kv_connector_module_path`; `KVConnectorBase_V1` (vllm/distributed/kv_transfer/kv_connector/v1/base.py)
says what each method is for.
"""

# vLLM is installed where it serves; types are checked with and without it.
# pyright: reportMissingImports=false

import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.version import __version__ as vllm_version  # pyright: ignore[reportPrivateImportUsage]

from tiercel import TierName
from tiercel.connectors.vllm.engine import join, leave
from tiercel.connectors.vllm.facts import (
    has_worker_processes,
    names_items,
    require_fixed_scales,
    require_parallelism,
    require_prefixes,
    require_recompute_around,
    whole_group,
)
from tiercel.connectors.vllm.launching import Launcher
from tiercel.connectors.vllm.logs import join_log
from tiercel.connectors.vllm.metrics import Counting, TiercelPromMetrics, TiercelStats
from tiercel.connectors.vllm.plans import RankPlan, StepPlan
from tiercel.connectors.vllm.rank_working import RankDescription, RankWorker, agreed_blocks
from tiercel.connectors.vllm.scheduling import SchedulerSide
from tiercel.connectors.vllm.settings import read_settings
from tiercel.connectors.vllm.tally import counts_of_cache
from tiercel.connectors.vllm.versions import check_version
from tiercel.connectors.vllm.working import WorkerSide

_logger = logging.getLogger(__name__)

KVConnectorMetadata.register(StepPlan)
KVConnectorMetadata.register(RankPlan)
KVConnectorHandshakeMetadata.register(RankDescription)


class TiercelConnector(KVConnectorBase_V1, SupportsHMA):
    """One role of Tiercel's connector in one vLLM engine."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        """Check that this engine can be served; in one process, the scheduler's role needs the worker's before it.

        Raises:
            ConfigError: a setting, the model, the way the engine is spread or vLLM's version; the message names it.
        """
        super().__init__(vllm_config, role, kv_cache_config)
        join_log(logging.getLogger("vllm"))
        transfer = vllm_config.kv_transfer_config
        extra: Mapping[str, Any] = transfer.kv_connector_extra_config
        require_parallelism(vllm_config)
        require_fixed_scales(vllm_config)
        require_prefixes(vllm_config)
        group = whole_group(kv_cache_config)
        self._settings = read_settings(extra, block_size=group.kv_cache_spec.block_size)
        check_version(vllm_version, allow_untested=self._settings.allow_untested_vllm)
        self._engine = join(transfer.engine_id)
        self._scheduler_side: SchedulerSide | None = None
        self._worker_side: Any = None  # WorkerSide, or RankWorker with the same calls
        self._launcher: Launcher | None = None
        self._counting: Counting | None = None
        try:
            if role is KVConnectorRole.SCHEDULER:
                if not has_worker_processes(vllm_config):
                    self._start_scheduling()
                _recompute_lost_loads(transfer)
                _tell_role(transfer)
            elif has_worker_processes(vllm_config):
                self._worker_side = RankWorker(vllm_config, get_tensor_model_parallel_rank(), self._settings)
            else:
                self._worker_side = WorkerSide(self._engine, self._settings)
        except BaseException:
            leave(self._engine)
            raise
        self._is_open = True

    def _start_scheduling(self) -> None:
        events = self._vllm_config.kv_events_config
        self._scheduler_side = SchedulerSide(
            self._engine,
            self._settings,
            has_named_items=names_items(self._vllm_config),
            with_events=events is not None and events.enable_kv_cache_events,
        )
        cache, tally = self._engine.require_cache(), self._engine.tally
        is_shared = self._settings.endpoint is not None
        self._counting = Counting(tally.counts if is_shared else partial(counts_of_cache, cache))

    @property
    def _scheduler(self) -> SchedulerSide:
        assert self._scheduler_side is not None, "this is the scheduler's call"
        return self._scheduler_side

    @property
    def _worker(self) -> Any:
        assert self._worker_side is not None, "this is the worker's call"
        return self._worker_side

    def _plan(self) -> StepPlan | RankPlan:
        plan = self._get_connector_metadata()
        assert isinstance(plan, StepPlan | RankPlan)
        return plan

    @property
    def requires_kv_delivery(self) -> bool:
        """A store that is dropped costs a recompute, so vLLM need not wait for any."""
        return False

    # ── worker ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """Take the KV tensors, and in one process open the cache; raises ConfigError or TierError."""
        if has_kv_transfer_group() and get_kv_transfer_group() is not self:
            require_recompute_around(get_kv_transfer_group())
        self._worker.register(self._vllm_config, self._kv_cache_config, kv_caches, vllm_version)

    def get_handshake_metadata(self) -> Any:
        """Return what the scheduler's role has to know of a worker in another process."""
        return self._worker.describe()

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """Fence blocks that vLLM took back, before they are written again."""
        self._worker.fence(kv_connector_metadata)

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        """Take a step's plan, before its pass."""
        super().bind_connector_metadata(connector_metadata)
        self._worker.begin(connector_metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Launch loads; requests wait for them without blocking others."""
        self._worker.load(self._plan())

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Loads have ended before a request runs."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Blocks are stored whole, behind the pass."""

    def wait_for_save(self) -> None:
        """Launch the stores of what this step completed; nothing is waited for."""
        self._worker.store(self._plan())

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Return requests whose blocks were read, and requests whose loads ended."""
        sent, received = self._worker.finished(finished_req_ids)
        return sent or None, received or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return blocks that loads did not fill; vLLM computes them."""
        failed: set[int] = self._worker.take_failed_blocks()
        return failed

    # ── scheduler ────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_xfer_handshake_metadata(self, metadata: dict[int, Any]) -> None:
        """Open the cache for what workers in other processes hold, and wait until they have joined.

        Raises:
            ConfigError, TierError, DeviceError, DeadlineError, OSError: as `SharedEngine.open_for_ranks`.
        """
        if not has_worker_processes(self._vllm_config):
            return  # vLLM calls with what nobody has said, too
        blocks = agreed_blocks(metadata, self._vllm_config.parallel_config.tensor_parallel_size)
        self._engine.open_for_ranks(blocks, self._vllm_config, self._settings)
        if self._scheduler_side is None:
            self._launcher = Launcher(self._engine, self._settings)
            self._start_scheduling()

    def on_new_request(self, request: Any) -> None:
        """Meet a request."""
        self._scheduler.on_new_request(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Return how many tokens behind vLLM's own hit will be loaded; None: ask again."""
        return self._scheduler.num_new_matched_tokens(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Order the load that vLLM has made room for."""
        self._scheduler.update_after_alloc(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """Return what the worker is to do in this step."""
        plan = self._scheduler.build_plan(scheduler_output)
        return plan if self._launcher is None else self._launcher.launch(plan)

    def update_connector_output(self, connector_output: Any) -> None:
        """Note which loads ended."""
        self._scheduler.loads_ended(connector_output.finished_recving or ())

    def get_external_cache_hit_sources(self, request: Any, num_external_tokens: int) -> dict[Any, int]:
        """Split a load's tokens by the tier that they lay in."""
        # Only versions that have the enum ask.
        from vllm.v1.metrics.cache_hit_source import CacheHitSource

        found = self._scheduler.hit_tokens(request.request_id)
        if sum(found.values()) != num_external_tokens:
            return {CacheHitSource.EXTERNAL_UNSPECIFIED: num_external_tokens} if num_external_tokens else {}
        names = {TierName.HOST: CacheHitSource.HOST, TierName.DISK: CacheHitSource.DISK}
        return {names[tier]: count for tier, count in found.items()}

    def take_events(self) -> list[Any]:
        """Return what came to host memory and disk and what left since the last call, if vLLM publishes events."""
        events = self._scheduler.events
        return [] if events is None else events.take()

    def has_pending_push_work(self) -> bool:
        """Return whether vLLM is to go on stepping without requests: there is, or will be, something for `take_events`."""
        events = None if self._scheduler_side is None else self._scheduler_side.events
        return events is not None and events.is_behind()

    def get_kv_connector_stats(self) -> TiercelStats | None:
        """Return counts since the last call, once a second."""
        return None if self._counting is None else self._counting.take()

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> TiercelStats | None:
        """Take counts back in that came from another process."""
        return TiercelStats(data=data or {})

    @classmethod
    def build_prom_metrics(
        cls, vllm_config: Any, metric_types: Any, labelnames: list[str], per_engine_labelvalues: Any
    ) -> TiercelPromMetrics | None:
        """Make the counters of vLLM's /metrics."""
        return TiercelPromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Forget a request; True if vLLM is to keep its blocks until a store has read them."""
        return self._scheduler.request_finished(request, block_ids), None

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """As `request_finished`: there is one group."""
        return self.request_finished(request, block_ids[0])

    def reset_cache(self) -> bool | None:
        """Forget every block, durably; False if that failed."""
        with self._engine.failures.guard("reset"):
            self._scheduler.reset()
            return True
        return False

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def shutdown(self) -> None:
        """End this role; the last one closes the cache. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        if self._scheduler_side is not None:
            self._scheduler_side.close()
        if self._launcher is not None:
            self._launcher.close()
        if self._worker_side is not None:
            self._worker_side.close()
        leave(self._engine)


def _recompute_lost_loads(transfer: Any) -> None:
    """Let vLLM compute what a load has lost. Its default fails the request, and it reads this setting after it has made the
    scheduler's connector."""
    if transfer.kv_load_failure_policy != "recompute":
        transfer.kv_load_failure_policy = "recompute"
        _logger.info("kv_load_failure_policy is recompute with TiercelConnector: what cannot be loaded is computed")


def _tell_role(transfer: Any) -> None:
    if transfer.kv_role != "kv_both":
        _logger.info("kv_role = %r has no effect: TiercelConnector loads and stores", transfer.kv_role)


with suppress(ValueError):  # somebody has told it
    # Where MultiConnector stands around this connector, the front end looks up by name what its counts mean.
    KVConnectorFactory.register_connector("TiercelConnector", "tiercel.connectors.vllm", "TiercelConnector")
