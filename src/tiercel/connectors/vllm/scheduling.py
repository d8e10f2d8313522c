"""The scheduler's half: which requests load what, and which blocks are stored after which step.

A block is stored when its tokens are known and its KV will be complete: known are the tokens that vLLM has confirmed (never
placeholders of asynchronous scheduling, never drafts), complete is what was computed before a step and is scheduled in it.
Every token that is confirmed and was not the last one sampled has been computed by the step that follows its sampling, so the
smaller of both counts is right with drafts, too.

Prompts are stored at once. What is generated is stored some blocks at a time, for few requests a step, and the rest when the
request ends: requests that decode side by side complete their blocks in the same step, and the launches, with the threads that
run them, would hold the interpreter's lock for as long as a decode step takes.
"""

import time
from collections.abc import Iterable
from typing import Any

from tiercel import Cache, CacheFacade, Lookup, TierName
from tiercel.connectors.vllm.engine import SharedEngine
from tiercel.connectors.vllm.events import KvEvents
from tiercel.connectors.vllm.plans import LoadOrder, StepPlan, StoreOrder, log_id
from tiercel.connectors.vllm.requests import Requests, TrackedRequest
from tiercel.connectors.vllm.settings import ConnectorSettings
from tiercel.connectors.vllm.staging import Staging

_GENERATED_BLOCKS = 8
"""Generated blocks of a request that are stored together while it runs."""

_GENERATED_STORES = 2
"""Most such stores in one step; those with the most blocks go first."""


_HELD_S = 0.25
"""How long a store may keep a finished request's blocks that vLLM lacks: host memory has them sooner, a disk perhaps not."""


class SchedulerSide:
    """Decides; starts nothing but staging. Called from the scheduler's thread. events: None if nobody follows them."""

    def __init__(
        self,
        engine: SharedEngine,
        settings: ConnectorSettings,
        *,
        has_named_items: bool = True,
        with_events: bool = False,
    ) -> None:
        cache = engine.require_cache()
        self._engine = engine
        self._cache = cache
        self._tokens_per_block = cache.geometry.tokens_per_block
        self._requests = Requests(cache, engine.failures, has_named_items=has_named_items)
        self._staging = Staging(
            cache,
            engine.failures,
            engine.tally,
            timeout_s=settings.load_timeout_s,
            has_host_tier=engine.has_host_tier,
        )
        self.events = _events_of(cache) if with_events else None
        self._loads: list[LoadOrder] = []
        self._settled_stores: list[StoreOrder] = []
        self._answered: set[str] = set()

    def on_new_request(self, request: Any) -> None:
        """Meet a request."""
        self._requests.track(request)

    def num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Answer how many tokens behind vLLM's own hit can be loaded; None: ask again. Loads are asynchronous."""
        found: int | None = 0
        with self._engine.failures.guard("lookup"):
            tracked = self._requests.track(request)
            unusable = tracked.gave_up or tracked.is_loading or getattr(request, "skip_reading_prefix_cache", False)
            if not unusable and num_computed_tokens % self._tokens_per_block == 0:
                before = tracked.lookup
                found = self._staging.promise(tracked, num_computed_tokens)
                if self.events is not None and tracked.lookup is not None and tracked.lookup is not before:
                    self.events.found(request, tracked.lookup)
        if found is not None:
            self._answered.add(request.request_id)
        return found, bool(found)

    def update_after_alloc(self, request: Any, block_ids: list[int], num_external_tokens: int) -> None:
        """Order the load that vLLM has made room for."""
        self._answered.discard(request.request_id)
        tracked = self._requests.track(request)
        lookup, tracked.lookup = tracked.lookup, None
        if num_external_tokens == 0:
            if lookup is not None:
                lookup.release()
            return
        num_blocks = num_external_tokens // self._tokens_per_block
        last = len(block_ids)
        if lookup is not None:
            last = lookup.first_block + num_blocks
            if lookup.num_blocks > num_blocks:
                lookup = self._shortened(request.request_id, lookup, num_blocks)
        targets = tuple(block_ids[last - num_blocks : last])
        tracked.is_loading = True
        tracked.num_ordered = last
        self._loads.append(LoadOrder(request_id=request.request_id, lookup=lookup, block_ids=targets))

    def hit_tokens(self, request_id: str) -> dict[TierName, int]:
        """Return the tokens of a load that was ordered in this step, by the tier that they lay in before any staging."""
        lookup = next((order.lookup for order in self._loads if order.request_id == request_id), None)
        tracked = self._requests.get(request_id)
        if lookup is None or tracked is None:
            return {}
        tokens: dict[TierName, int] = {TierName.HOST: 0, TierName.DISK: 0}
        for segment in lookup.segments:
            tokens[segment.tier] = tokens.get(segment.tier, 0) + segment.num_blocks * self._tokens_per_block
        if tracked.staged is not None:
            num_staged = tracked.staged.blocks_by_tier.get(TierName.HOST, 0) * self._tokens_per_block
            num_staged = min(num_staged, tokens[TierName.HOST])
            tokens[TierName.HOST] -= num_staged
            tokens[TierName.DISK] += num_staged
        return {tier: count for tier, count in tokens.items() if count}

    def _shortened(self, request_id: str, lookup: Lookup, num_blocks: int) -> Lookup | None:
        """vLLM took less than was promised: look up that much."""
        size, first = self._tokens_per_block, lookup.first_block
        lookup.release()
        with self._engine.failures.guard("lookup"):
            return self._cache.lookup(
                lookup.sequence,
                limit_tokens=(first + num_blocks) * size,
                engine_tokens=first * size,
                request_id=log_id(request_id),
            )
        return None

    def build_plan(self, scheduler_output: Any) -> StepPlan:
        """Say what the worker is to do in this step."""
        fences = self._preempted()
        if self._answered:  # and not admitted
            self._answered.clear()
            self._make_room()
        self._note_blocks(scheduler_output)
        prompts: list[tuple[TrackedRequest, range]] = []
        generated: list[tuple[TrackedRequest, range]] = []
        for request_id, num_scheduled in scheduler_output.num_scheduled_tokens.items():
            tracked = self._requests.get(request_id)
            if tracked is not None:
                blocks = self._complete(tracked, tracked.request.num_computed_tokens + num_scheduled)
                if blocks and blocks.start < tracked.num_prompt_tokens // self._tokens_per_block:
                    prompts.append((tracked, blocks))
                elif len(blocks) >= _GENERATED_BLOCKS:
                    generated.append((tracked, blocks))
        generated.sort(key=lambda each: len(each[1]), reverse=True)
        stores: list[StoreOrder] = []
        for tracked, blocks in (*prompts, *generated[:_GENERATED_STORES]):
            with self._engine.failures.guard("store"):
                stores += self._orders(tracked, blocks)
        loads, self._loads = self._loads, []
        settled, self._settled_stores = self._settled_stores, []
        return StepPlan(fences=fences, loads=tuple(loads), settled_stores=tuple(settled), stores=tuple(stores))

    def _preempted(self) -> tuple[str, ...]:
        """Requests that lost their blocks since the last step."""
        fences = []
        for tracked in self._requests:
            request = tracked.request
            if request.num_preemptions != tracked.num_preemptions:
                tracked.forget_blocks()
                if self._engine.reads_source(request.request_id):
                    fences.append(request.request_id)
        return tuple(fences)

    def _make_room(self) -> None:
        """vLLM lacks blocks: let go of those of the request that ended first, if a slow store still keeps them."""
        engine, held = self._engine, self._engine.held
        oldest = next((request_id for request_id in held if engine.reads_source(request_id)), None)
        if oldest is None or time.monotonic() - held[oldest] < _HELD_S:
            return
        engine.failures.count("store", "NO_ROOM", "vLLM needed the blocks before they were read")
        for ticket in engine.stores.get(oldest, ()):
            with engine.failures.guard("store"):
                ticket.cancel()

    def _note_blocks(self, scheduler_output: Any) -> None:
        for new in scheduler_output.scheduled_new_reqs:
            tracked = self._requests.get(new.req_id)
            if tracked is not None:
                tracked.block_ids = list(new.block_ids[0])
        cached = scheduler_output.scheduled_cached_reqs
        for request_id, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            tracked = self._requests.get(request_id)
            if tracked is None:
                continue
            if request_id in cached.resumed_req_ids:
                tracked.block_ids = []
            if blocks is not None:
                tracked.block_ids.extend(blocks[0])

    def _complete(self, tracked: TrackedRequest, num_computed: int) -> range:
        """Return the blocks that are new among the first num_computed tokens."""
        restart_at = self._engine.restart_at
        if restart_at:
            tracked.num_ordered = min(
                tracked.num_ordered, restart_at.pop(tracked.request.request_id, tracked.num_ordered)
            )
        if tracked.sequence is None or tracked.is_outdated:
            return range(0)
        known = min(tracked.request.num_tokens, num_computed)
        stop = min(known // self._tokens_per_block, len(tracked.block_ids))
        return range(tracked.num_ordered, max(stop, tracked.num_ordered))

    def _orders(self, tracked: TrackedRequest, blocks: range) -> list[StoreOrder]:
        """Order blocks that are complete; none if there are none."""
        if not blocks:
            return []
        request_id = tracked.request.request_id
        sequence = tracked.update_tokens()
        assert sequence is not None
        if self.events is not None:
            self.events.name(tracked.request, sequence, blocks.start, blocks.stop)
        tracked.num_ordered = blocks.stop
        open_orders = self._engine.orders_open
        open_orders[request_id] = open_orders.get(request_id, 0) + 1
        ids = tuple(tracked.block_ids[blocks.start : blocks.stop])
        return [StoreOrder(request_id=request_id, sequence=sequence, first_block=blocks.start, block_ids=ids)]

    def request_finished(self, request: Any, block_ids: list[int]) -> bool:
        """Forget a request. True if vLLM is to keep its blocks until a store has read them."""
        request_id = request.request_id
        tracked = self._requests.forget(request_id)
        if tracked is None:
            return False
        tracked.release()
        if tracked.is_loading:
            self._cancel_load(request_id)
            return False
        tracked.block_ids = list(block_ids)
        with self._engine.failures.guard("store"):
            # The last token was sampled and never computed.
            blocks = self._complete(tracked, min(len(request.all_token_ids) - 1, request.num_computed_tokens))
            self._settled_stores += self._orders(tracked, blocks)
        self._engine.restart_at.pop(request_id, None)
        if not self._engine.reads_source(request_id):
            return False
        self._engine.held[request_id] = time.monotonic()
        return True

    def _cancel_load(self, request_id: str) -> None:
        """End the load of a request that was aborted; vLLM frees its blocks when the load is reported as ended."""
        for at, order in enumerate(self._loads):
            if order.request_id == request_id:
                if order.lookup is not None:
                    order.lookup.release()
                self._loads[at] = LoadOrder(request_id=request_id, lookup=None, block_ids=())
        load = self._engine.loads.get(request_id)
        if load is not None:
            load.ticket.cancel()

    def reset(self) -> None:
        """Forget every block in every tier, and keep none that was computed before. Raises TiercelError."""
        for tracked in self._requests:
            tracked.release()
            tracked.staged, tracked.num_ordered = None, 0
            tracked.is_outdated = bool(tracked.block_ids) or tracked.is_loading
        for order in self._settled_stores:
            self._engine.close_order(order.request_id)
        self._settled_stores = []
        self._cache.reset()
        if self.events is not None:
            self.events.let_sleep()

    def loads_ended(self, request_ids: Iterable[str]) -> None:
        """Note that vLLM has heard of loads that ended. A request whose load lost blocks is computed from there on."""
        for request_id in request_ids:
            tracked = self._requests.get(request_id)
            num_lost = self._engine.blocks_lost.pop(request_id, 0)
            if tracked is not None:
                tracked.is_loading = False
                if num_lost:
                    tracked.gave_up = True
                    tracked.num_ordered -= num_lost

    def close(self) -> None:
        """Give back everything."""
        for tracked in self._requests:
            tracked.release()
        for order in self._loads:
            if order.lookup is not None:
                order.lookup.release()
        self._loads = []
        self._settled_stores = []


def _events_of(cache: CacheFacade) -> KvEvents | None:
    """Return what announces a cache's blocks. A node does not tell its clients what comes and goes, so with one there is none."""
    if isinstance(cache, Cache):
        return KvEvents(cache)
    cache.note(
        "KV events tell of the engine's own memory only: what lies in a node's tiers is not announced to routers",
        kind="kv_events",
    )
    return None
