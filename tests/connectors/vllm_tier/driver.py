"""Drives vLLM's tiering manager as its scheduler and its GPU worker do."""

# pyright: reportMissingImports=false

import time
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from vllm.v1.kv_offload.base import LookupResult, OffloadKey, ReqContext, ScheduleEndContext, make_offload_key
from vllm.v1.kv_offload.config import (
    OffloadingCacheConfig,
    OffloadingConfig,
    OffloadingGroupConfig,
    OffloadingModelConfig,
    OffloadingParallelConfig,
)
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

CHUNK_BYTES = 16384
_WAIT_S = 30.0


def make_config(
    engine_id: str,
    tier: dict[str, Any],
    *,
    chunks: int = 16,
    chunk_bytes: int = CHUNK_BYTES,
    dtype: str = "bfloat16",
    model: str = "some/model",
    tp_size: int = 1,
    dp_index: int = 0,
    tier_type: str = "TiercelTier",
    publishes_events: bool = False,
    **extra: Any,
) -> OffloadingConfig:
    """What vLLM makes of its command line, for one KV cache group."""
    entry = {"type": tier_type, **tier}
    if tier_type == "TiercelTier":
        entry["module_path"] = "tiercel.connectors.vllm_tier"
    return OffloadingConfig(
        groups=(OffloadingGroupConfig(tokens_per_block=16, layer_names=("layer.0",), group_id=0),),
        worker_kv_bytes_per_block=chunk_bytes // tp_size,
        enable_kv_cache_events=publishes_events,
        extra_config={"cpu_bytes_to_use": chunks * chunk_bytes, "secondary_tiers": [entry], **extra},
        engine_id=engine_id,
        model=OffloadingModelConfig(name=model, dtype=dtype),
        cache=OffloadingCacheConfig(tokens_per_hash=16, blocks_per_chunk=1),
        parallel=OffloadingParallelConfig(
            rank=0,
            world_size=tp_size,
            tp_size=tp_size,
            pp_size=1,
            pcp_size=1,
            dcp_size=1,
            data_parallel_index=dp_index,
            data_parallel_size=1,  # as vLLM has it for dense models, whatever their number
            data_parallel_rank_local=None,
            is_parallelism_agnostic=False,
        ),
        kv_cache_layout="LBNHC",
    )


def keys_of(name: str, count: int) -> list[OffloadKey]:
    """Keys such as vLLM makes: 32 bytes of hash and the group's number."""
    return [make_offload_key(f"{name}-{i}".encode().ljust(32, b"."), 0) for i in range(count)]


def content(key: bytes, num_bytes: int) -> NDArray[np.uint8]:
    """The bytes that belong to a key: what is served must be these."""
    return np.random.default_rng(np.frombuffer(key, np.uint8)).integers(0, 256, num_bytes, np.uint8)


class Driver:
    """One engine's offloading: stores, looks up and loads chunks through vLLM's manager."""

    def __init__(self, config: OffloadingConfig) -> None:
        self.spec = TieringOffloadingSpec(config)
        self.manager = cast(Any, self.spec.get_manager())
        self.tier = self.manager.secondary_tiers[0]
        self.view = self.manager.primary_tier.get_kv_memoryview()
        self.chunk_bytes = self.view.strides[0]
        self._open = True

    def request(self, req_id: str) -> ReqContext:
        """Begin a request."""
        context = ReqContext(req_id=req_id)
        self.manager.on_new_request(context)
        return context

    def finish(self, context: ReqContext) -> None:
        """End a request."""
        self.manager.on_request_finished(context)

    def step(self) -> None:
        """End a step of the scheduler."""
        self.manager.on_schedule_end(ScheduleEndContext(new_req_ids=(), preempted_req_ids=()))

    def settle(self) -> None:
        """Step until no job is under way."""
        deadline = time.monotonic() + _WAIT_S
        self.step()
        while self.manager.has_pending_work():
            assert time.monotonic() < deadline, "vLLM's jobs do not end"
            time.sleep(0.001)
            self.step()

    def store(self, keys: list[OffloadKey], req_id: str = "store") -> None:
        """Offload chunks with their content, as a prefill does, and wait until the disk has them."""
        context = self.request(req_id)
        output = self.manager.prepare_store(keys, context)
        assert output is not None, "vLLM's host memory is full"
        for key, chunk in zip(output.keys_to_store, output.store_spec.chunk_ids, strict=True):
            np.asarray(self.view).view(np.uint8)[int(chunk)] = content(key, self.chunk_bytes)
        self.manager.complete_store(output.keys_to_store, context, True)
        self.finish(context)
        self.settle()

    def lookup(self, keys: list[OffloadKey], context: ReqContext) -> list[LookupResult]:
        """One answer each, as the scheduler gets them in one step."""
        return [self.manager.lookup(key, context) for key in keys]

    def load(self, keys: list[OffloadKey], req_id: str = "load") -> list[NDArray[np.uint8] | None]:
        """Look chunks up, wait for their promotion as a request does, and return what the GPU would get; None for a miss."""
        context = self.request(req_id)
        deadline = time.monotonic() + _WAIT_S
        while True:
            results = self.lookup(keys, context)
            if not {LookupResult.RETRY, LookupResult.HIT_PENDING} & set(results):
                break
            assert time.monotonic() < deadline, "a request is held for ever"
            self.step()
            time.sleep(0.001)
        found = [key for key, result in zip(keys, results, strict=True) if result is LookupResult.HIT]
        bytes_of: dict[bytes, NDArray[np.uint8]] = {}
        if found:
            spec = self.manager.prepare_load(found, context)
            for key, chunk in zip(found, spec.chunk_ids, strict=True):
                bytes_of[key] = np.asarray(self.view).view(np.uint8)[int(chunk)].copy()
            self.manager.complete_load(found, context)
        self.finish(context)
        self.settle()
        return [bytes_of.get(key) for key in keys]

    def forget_primary(self) -> None:
        """Empty vLLM's host memory, as for a weights update that changes nothing."""
        self.manager.reset_cache()
        if hasattr(self.manager, "on_reset_flushed"):
            self.manager.on_reset_flushed()

    def shutdown(self) -> None:
        """End the engine. Idempotent."""
        if self._open:
            self._open = False
            self.view = None
            self.manager.shutdown()


def count_right(keys: list[OffloadKey], got: list[NDArray[np.uint8] | None]) -> int:
    """How many chunks were served; every one of them must be right."""
    served = 0
    for key, chunk in zip(keys, got, strict=True):
        if chunk is not None:
            assert (chunk == content(key, len(chunk))).all(), f"wrong bytes for {key!r}"
            served += 1
    return served
