"""As much of vLLM as the connector's two halves see: requests, a block pool, steps. Its KV is a known function of the tokens.

A real engine in small, not a mock: `Mini.step` schedules and computes as vLLM does, with prefill in chunks, and `check` tells
whether a request's blocks hold the bytes that computing them would have given.
"""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.helpers.small_engine import SmallEngine
from tiercel import Cache
from tiercel.connectors.vllm.engine import SharedEngine
from tiercel.connectors.vllm.reach import LocalReach
from tiercel.connectors.vllm.scheduling import SchedulerSide
from tiercel.connectors.vllm.settings import ConnectorSettings
from tiercel.connectors.vllm.working import WorkerSide

BLOCK = 16


@dataclass(kw_only=True, eq=False)
class MiniRequest:
    """What the connector reads of vLLM's request."""

    request_id: str
    prompt_token_ids: list[int]
    all_token_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    num_preemptions: int = 0
    mm_features: tuple[Any, ...] = ()
    lora_request: Any = None
    cache_salt: str | None = None
    block_ids: list[int] = field(default_factory=list)
    waits_for_load: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.all_token_ids)


def request(name: str, num_tokens: int, *, seed: int = 0) -> MiniRequest:
    """A request for random tokens."""
    prompt = np.random.default_rng(seed).integers(0, 50_000, num_tokens).tolist()
    return MiniRequest(request_id=name, prompt_token_ids=prompt, all_token_ids=list(prompt))


class Mini:
    """One engine of `num_blocks` blocks over a cache."""

    def __init__(self, cache: Cache, *, num_blocks: int = 256, load_timeout_s: float = 5.0) -> None:
        self.cache = cache
        self.kv = SmallEngine(cache.geometry, num_blocks)
        self.free = list(range(1, num_blocks))
        self.shared = SharedEngine("mini")
        self.shared.cache, self.shared.reach = cache, LocalReach(self.kv.memory)
        self.shared.failures.cache = cache
        settings = ConnectorSettings(cache=cache._assembly.config, load_timeout_s=load_timeout_s)
        self.scheduler = SchedulerSide(self.shared, settings)
        self.worker = WorkerSide(self.shared, settings)
        self.requests: dict[str, MiniRequest] = {}
        self.held: dict[str, MiniRequest] = {}
        self.finished_ids: set[str] = set()
        self.failed_blocks: set[int] = set()

    def add(self, one: MiniRequest) -> None:
        """Take a request in."""
        self.requests[one.request_id] = one
        self.scheduler.on_new_request(one)

    def ask(self, one: MiniRequest, local_tokens: int = 0) -> int | None:
        """Ask the connector how much it can load, once."""
        return self.scheduler.num_new_matched_tokens(one, local_tokens)[0]

    def admit(self, one: MiniRequest, external: int) -> None:
        """Give a request blocks for its whole prompt and let `external` tokens be loaded."""
        num_blocks = -(-one.num_tokens // BLOCK)
        one.block_ids = [self.free.pop(0) for _ in range(num_blocks)]
        self.scheduler.update_after_alloc(one, list(one.block_ids), external)
        one.num_computed_tokens = external
        one.waits_for_load = external > 0

    def step(self, scheduled: dict[MiniRequest, int] | None = None, *, new: tuple[MiniRequest, ...] = ()) -> Any:
        """Run one step: this many tokens of each request. Returns what the worker reported."""
        scheduled = scheduled or {}
        output = SimpleNamespace(
            num_scheduled_tokens={one.request_id: count for one, count in scheduled.items()},
            scheduled_new_reqs=[SimpleNamespace(req_id=one.request_id, block_ids=(one.block_ids,)) for one in new],
            scheduled_cached_reqs=SimpleNamespace(req_ids=[], new_block_ids=[], resumed_req_ids=set()),
        )
        plan = self.scheduler.build_plan(output)
        finished_ids, self.finished_ids = self.finished_ids, set()
        self.worker.fence(plan)
        self.worker.begin(plan)
        self.worker.load(plan)
        for one, count in scheduled.items():
            self._compute(one, count)
        if scheduled:
            self.worker.store(plan)
        sent, received = self.worker.finished(finished_ids)
        self.failed_blocks |= self.worker.take_failed_blocks()
        self.scheduler.loads_ended(received)
        for request_id in received:
            if request_id in self.requests:
                self.requests[request_id].waits_for_load = False
            else:
                self.free += self.held.pop(request_id).block_ids
        for request_id in sent:
            self.free += self.held.pop(request_id).block_ids
        return plan

    def _idle(self) -> None:
        """A step with nothing to compute, after which vLLM's engine sleeps for a millisecond."""
        self.step()
        time.sleep(0.001)

    def _compute(self, one: MiniRequest, count: int) -> None:
        start, stop = one.num_computed_tokens // BLOCK, (one.num_computed_tokens + count) // BLOCK
        sequence = self.cache.sequence(np.array(one.all_token_ids, np.int32))
        stop = min(stop, sequence.num_blocks)
        for block in range(start, stop):
            single = self.cache.sequence(np.array(one.all_token_ids[: (block + 1) * BLOCK], np.int32))
            self.kv.fill(single, start=block, at=one.block_ids[block])
        one.num_computed_tokens += count

    def run(self, one: MiniRequest, *, chunk: int = 10_000) -> int:
        """Serve a request to the end of its prefill. Returns the tokens that were loaded."""
        self.add(one)
        external = self.ask(one)
        for _ in range(5000):
            if external is not None:
                break
            self._idle()
            external = self.ask(one)
        assert external is not None, "asked to ask again for too long"
        self.admit(one, external)
        for _ in range(5000):
            if not one.waits_for_load:
                break
            self._idle()
        assert not one.waits_for_load, "the load was never reported"
        first = True
        while one.num_computed_tokens < one.num_tokens:
            self.step({one: min(chunk, one.num_tokens - one.num_computed_tokens)}, new=(one,) if first else ())
            first = False
        return external

    def check(self, one: MiniRequest, num_tokens: int) -> None:
        """Assert that the request's leading blocks hold what computing them gives."""
        sequence = self.cache.sequence(np.array(one.all_token_ids, np.int32))
        for block in range(num_tokens // BLOCK):
            self.kv.check(sequence, 1, at=one.block_ids[block], first=block)

    def finish(self, one: MiniRequest) -> bool:
        """End a request. True if its blocks are held."""
        del self.requests[one.request_id]
        held = self.scheduler.request_finished(one, list(one.block_ids)) or one.waits_for_load
        self.finished_ids.add(one.request_id)
        if held:
            self.held[one.request_id] = one
        else:
            self.free += one.block_ids
        return held

    def drain(self) -> None:
        """Step until nothing is held."""
        for _ in range(5000):
            if not self.held:
                return
            self._idle()
        raise AssertionError(f"blocks of {sorted(self.held)} are held for good")

    def preempt(self, one: MiniRequest) -> None:
        """Take a running request's blocks away."""
        self.free += one.block_ids
        one.block_ids, one.num_computed_tokens = [], 0
        one.num_preemptions += 1
