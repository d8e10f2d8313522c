"""`TiercelTier`: what vLLM's tiering manager calls, on the facade for named blocks.

vLLM runs every method in its scheduler, between two steps of the engine: none blocks, but `drain_jobs` and `shutdown`, which
are meant to. A chunk's life here:

    lookup -> HIT, pinned until the step ends -> submit_load pins it for the job -> get_finished_jobs

A failed load makes the chunks that failed misses for that request, so that no request waits for the same chunk twice;
whatever went wrong, the outcome is a recompute.
"""

# pyright: reportMissingImports=false

import logging
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

import numpy as np
from vllm.v1.kv_offload.base import (
    Locality,
    LookupResult,
    Medium,
    OffloadingEvent,
    OffloadKey,
    ReqContext,
    RequestOffloadingContext,
    ScheduleEndContext,
)
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob

from tiercel import Found, KeyedCache, Launched, Sequence, TiercelError
from tiercel.connectors.vllm_tier import versions
from tiercel.connectors.vllm_tier.events import TierEvents
from tiercel.connectors.vllm_tier.identity import HASH_REMEDY, UNKNOWN, chunk_identity, unstable_hashes
from tiercel.connectors.vllm_tier.memory import describe_view
from tiercel.connectors.vllm_tier.metrics import TierMetrics, metric_definitions
from tiercel.connectors.vllm_tier.settings import read_settings

_logger = logging.getLogger(__name__)

_TOUCHES_PER_STEP = 64
_TOUCHES_WAITING_MAX = 65536


@dataclass(slots=True)
class _Request:
    """What is kept of a request until it has finished."""

    blocks: dict[OffloadKey, Sequence] = field(default_factory=dict)
    failed: set[OffloadKey] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Job:
    """A job of vLLM's under way; `launched` is None if it could not even start."""

    keys: list[OffloadKey]
    req_id: str
    loading: bool
    launched: Launched | None


class TiercelTier(SecondaryTierManager):
    """A bounded, verified, restartable disk behind vLLM's `TieringOffloadingSpec`."""

    medium: ClassVar[Medium | None] = Medium.STORAGE

    def __init__(
        self,
        offloading_spec: Any,
        primary_kv_view: memoryview,
        tier_type: str,
        backpressure_detector: Any = None,
        locality: str | None = None,
        **settings: object,
    ) -> None:
        """Open the disk and bring back what it holds.

        Args:
            offloading_spec, primary_kv_view, tier_type, backpressure_detector: as vLLM gives them.
            locality: as vLLM's other tiers take it; "LOCAL" by default.
            **settings: Tiercel's settings, and model_revision.

        Raises:
            ConfigError: a setting or the machine does not fit.
            DirectoryLockedError: another process uses the directory.
            TierError: the directory cannot be used.
        """
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        self.locality = Locality(locality or "LOCAL")
        chosen = read_settings(settings, replica=offloading_spec.config.parallel.data_parallel_index)
        identity = chunk_identity(offloading_spec, self.block_size_bytes, chosen.model_revision)
        self._cache = KeyedCache.open(identity, block_bytes=self.block_size_bytes, config=chosen.config)
        self._memory = describe_view(self._cache, primary_kv_view)
        self._direct = self._memory.block_address is not None
        self._metrics = TierMetrics(self._cache, self.tier_type)
        self._requests: dict[str, _Request] = {}
        self._held: dict[tuple[str, OffloadKey], Found] = {}
        self._jobs: dict[int, _Job] = {}
        self._ended: SimpleQueue[int] = SimpleQueue()
        publishes = offloading_spec.kv_events_config.enable_kv_cache_events
        self._events = TierEvents(self._cache, self.locality) if publishes else None
        self._touches: deque[OffloadKey] = deque(maxlen=_TOUCHES_WAITING_MAX)
        self._hashes_checked = False
        self._say_what_is_lesser(str(identity["revision"]))

    def _say_what_is_lesser(self, revision: str) -> None:
        if not versions.is_tested():
            self._cache.note(
                f"vLLM {versions.vllm_version()} was not tested with this connector (tested: {', '.join(versions.TESTED)})",
                kind="vllm_version",
            )
        if not self._direct:
            self._cache.note(
                f"vLLM's host memory is not page-aligned (chunks of {self.block_size_bytes} bytes): each chunk is copied once "
                f"more on its way to the disk",
                kind="direct_memory",
            )
        if revision == UNKNOWN:
            self._cache.note(
                "the revision of the model's weights is not known here: set model_revision, and change it with the weights, or "
                "empty the directory when they change",
                kind="model_revision",
            )
        self._check_hashes()

    def _check_hashes(self) -> None:
        reason = unstable_hashes()
        if reason:
            self._hashes_checked = True
            self._cache.note(
                f"nothing stored will be found again after a restart: {reason}; {HASH_REMEDY}", kind="hashes"
            )

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """As vLLM asks; chunks are offloaded one by one as they are made."""
        if not self._hashes_checked:
            self._check_hashes()
            self._hashes_checked = True
        return RequestOffloadingContext()

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        """Say at once whether a chunk is stored; what is answered with HIT stays until the step ends."""
        req_id = req_context.req_id
        if (req_id, key) in self._held:
            return LookupResult.HIT
        request = self._request(req_id)
        if key in request.failed:
            return LookupResult.MISS
        found = self._cache.find(self._block(request, key))
        if found.stored:
            self._held[req_id, key] = found
            if self._events is not None:
                self._events.found(key, request.blocks[key])
            return LookupResult.HIT
        return LookupResult.RETRY if found.pending else LookupResult.MISS

    def submit_store(self, job_metadata: TransferJob) -> None:
        """Start to store a job's chunks."""
        self._submit(job_metadata, loading=False)

    def submit_load(self, job_metadata: TransferJob) -> None:
        """Start to load a job's chunks into the primary tier."""
        self._submit(job_metadata, loading=True)

    def _submit(self, job: TransferJob, *, loading: bool) -> None:
        keys = list(job.keys)
        req_id = job.req_context.req_id
        request = self._request(req_id)
        blocks = [self._block(request, key) for key in keys]
        memory = self._memory.blocks(np.asarray(job.chunk_ids))
        if self._events is not None and not loading:
            self._events.name(keys, blocks)
        run = self._cache.load if loading else self._cache.store
        launched = None
        try:
            launched = run(blocks, memory, direct=self._direct)
        except TiercelError as error:
            self._cache.observe_recompute(type(error).__name__)
            _logger.debug("job %d was not started: %s", job.job_id, error)
        self._jobs[job.job_id] = _Job(keys, req_id, loading, launched)
        if launched is None:
            self._ended.put(job.job_id)
        else:
            launched.ticket.add_done_callback(lambda: self._ended.put(job.job_id))

    def get_finished_jobs(self) -> Iterable[JobResult]:
        """The jobs that have ended since the last call. Of a load, the chunks that arrived verified are good each by itself."""
        results: list[JobResult] = []
        while True:
            try:
                job_id = self._ended.get_nowait()
            except Empty:
                return results
            results.append(self._result(job_id, self._jobs.pop(job_id)))

    def _result(self, job_id: int, job: _Job) -> JobResult:
        if job.launched is None:
            good, seconds, success = [], None, False
        else:
            result = job.launched.ticket.try_wait()
            assert result is not None, "a ticket called back before it was resolved"
            good = [
                job.keys[p] for p, status in zip(job.launched.positions, result.statuses, strict=True) if status == 0
            ]
            seconds, success = result.seconds, result.ok
        if job.loading:
            success = len(good) == len(job.keys)
            if not success:
                self._note_failed(job, good)
        num_bytes = len(good) * self.block_size_bytes
        self._metrics.job_ended(loading=job.loading, num_bytes=num_bytes, seconds=seconds, ok=success)
        return JobResult(
            job_id=job_id,
            success=success,
            successful_keys=tuple(good) if job.loading and good and not success else None,
            transfer_time=seconds,
            transfer_bytes=num_bytes or None,
        )

    def _note_failed(self, job: _Job, good: Collection[OffloadKey]) -> None:
        self._cache.observe_recompute("load")
        request = self._requests.get(job.req_id)
        if request is not None:
            request.failed.update(set(job.keys).difference(good))

    def touch(self, keys: Collection[OffloadKey], req_context: ReqContext) -> None:
        """Note that chunks were used. The index hears of them step by step, so that a long prompt holds up no step."""
        self._touches.extend(reversed(list(keys)))

    def on_request_finished(self, req_context: ReqContext) -> None:
        """Forget a request."""
        self._requests.pop(req_context.req_id, None)

    def on_schedule_end(self, context: ScheduleEndContext) -> None:
        """Let go of what lookups held in this step, and take in some of the uses that were noted."""
        for found in self._held.values():
            found.release()
        self._held.clear()
        for _ in range(min(_TOUCHES_PER_STEP, len(self._touches))):
            self._cache.touch([self._cache.block(self._touches.popleft())])

    def has_pending_work(self) -> bool:
        """Whether a job is under way."""
        return bool(self._jobs)

    def drain_jobs(self) -> None:
        """Wait until every job has ended: at the latest at its deadline and when the disk has answered."""
        for job in list(self._jobs.values()):
            if job.launched is not None:
                job.launched.ticket.wait()

    def take_events(self) -> Iterable[OffloadingEvent]:
        """What came to the disk and what left it since the last call, if vLLM publishes events."""
        return () if self._events is None else self._events.take()

    def get_stats(self) -> Any:
        """What happened since the last call, for vLLM's metrics; None if that was a moment ago."""
        return self._metrics.take()

    @classmethod
    def build_metric_definitions(cls, extra_config: dict[str, Any]) -> dict[str, Any]:
        """The metrics that `get_stats` fills."""
        return metric_definitions()

    @classmethod
    def config_info_keys(cls, tier_config: dict[str, Any]) -> tuple[str, ...]:
        """Labels of `config_info` (vLLM 0.33)."""
        return ("tiercel_ssd_blocks", "tiercel_chunk_bytes", "tiercel_direct_memory")

    def config_info(self) -> dict[str, str | int | float | bool]:
        """What the tier was opened with."""
        return {
            "tiercel_ssd_blocks": self._cache.stats().tiers[0].num_slots,
            "tiercel_chunk_bytes": self.block_size_bytes,
            "tiercel_direct_memory": self._direct,
        }

    def shutdown(self) -> None:
        """Cancel jobs, write the disk's checkpoint and close. vLLM's memory is not touched afterwards. Idempotent."""
        self._held.clear()
        self._cache.close()

    def _request(self, req_id: str) -> _Request:
        request = self._requests.get(req_id)
        if request is None:
            request = self._requests[req_id] = _Request()
        return request

    def _block(self, request: _Request, key: OffloadKey) -> Sequence:
        block = request.blocks.get(key)
        if block is None:
            block = request.blocks[key] = self._cache.block(key)
        return block
