"""The worker's half: launches what a step's plan says and tells vLLM what has ended.

    handle_preemptions       fence blocks that vLLM took back
    bind_connector_metadata  note where vLLM's stream stands: loads wait for what came before the pass, not for the pass
    start_load_kv            loads, and stores of blocks that are complete already; from 0.33 on behind the pass
    (forward pass)
    wait_for_save            stores of blocks that this step completed; nothing is waited for
    get_finished             loads that ended, finished requests whose blocks were read

On a GPU, order with vLLM's stream is kept by events: a block is read behind the pass that wrote it and written behind whatever
used it before. On a CPU the pass has run when it returns.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tiercel import BlockStatus, DeadlineError, Outcome, ThrottledError, Ticket
from tiercel.connectors.vllm.engine import RunningLoad, SharedEngine
from tiercel.connectors.vllm.plans import LoadOrder, StepPlan, StoreOrder, log_id
from tiercel.connectors.vllm.settings import ConnectorSettings


class WorkerSide:
    """Launches and reports. Called from the thread of the process that has the cache."""

    def __init__(self, engine: SharedEngine, settings: ConnectorSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._failures = engine.failures
        self._finished_ids: set[str] = set()
        self._failed_blocks: set[int] = set()
        self._failed_loads: set[str] = set()
        self._before_pass: Any = None

    def register(self, vllm_config: Any, kv_cache_config: Any, kv_caches: Mapping[str, Any], version: str) -> None:
        """Take the engine's KV tensors and open the cache. Raises as `SharedEngine.open`."""
        self._engine.open(vllm_config, kv_cache_config, kv_caches, self._settings, version=version)

    def describe(self) -> None:
        """Nothing: the scheduler's role meets this one in its process."""

    def fence(self, plan: StepPlan) -> None:
        """Wait until nothing reads the blocks of requests that lost them."""
        for request_id in plan.fences:
            for ticket in self._engine.stores.pop(request_id, ()):
                with self._failures.guard("fence"):
                    self._let_go(ticket)

    def _let_go(self, ticket: Ticket) -> None:
        reach = self._engine.reach
        try:
            ticket.wait_source(0.0 if reach is None else reach.fence_wait_s)
        except DeadlineError:
            ticket.cancel()

    def begin(self, plan: StepPlan) -> None:
        """Note where the engine stands before the plan's pass, if `load` will have anything to do."""
        if plan.loads or plan.settled_stores:
            self._before_pass = self._engine.require_reach().now()

    def load(self, plan: StepPlan) -> None:
        """Launch the plan's loads, and the stores that need no forward pass, behind what came before the pass."""
        after, self._before_pass = self._before_pass, None
        for load in plan.loads:
            self._launch_load(load, after)
        self._store_all(plan.settled_stores, after)

    def store(self, plan: StepPlan) -> None:
        """Launch the stores of what the forward pass has completed."""
        if plan.stores:
            self._store_all(plan.stores, self._engine.require_reach().now())

    def _launch_load(self, order: LoadOrder, after: Any) -> None:
        cache, lookup = self._engine.require_cache(), order.lookup
        if lookup is not None:
            with self._failures.guard("load"):
                target = self._engine.require_reach().blocks(order.block_ids[: lookup.num_blocks], after)
                name = log_id(order.request_id)
                ticket = cache.load(lookup, target, timeout_s=self._settings.load_timeout_s, request_id=name)
                self._engine.loads[order.request_id] = RunningLoad(ticket=ticket, block_ids=order.block_ids)
                return
            lookup.release()
        self._lose(order.request_id, order.block_ids)

    def _lose(self, request_id: str, block_ids: tuple[int, ...]) -> None:
        """Note a load that ended without these blocks."""
        self._failed_loads.add(request_id)
        self._failed_blocks.update(block_ids)
        if block_ids:
            self._engine.blocks_lost[request_id] = len(block_ids)

    def _store_all(self, orders: Iterable[StoreOrder], after: Any) -> None:
        engine = self._engine
        for order in orders:
            engine.close_order(order.request_id)
            with self._failures.guard("store"):
                try:
                    self._launch_store(order, after)
                except ThrottledError:
                    self._restart(order.request_id, order.first_block)
                    raise

    def _launch_store(self, order: StoreOrder, after: Any) -> None:
        cache = self._engine.require_cache()
        source = self._engine.require_reach().blocks(order.block_ids, after)
        name = log_id(order.request_id)
        ticket = cache.store(order.sequence, source, first_block=order.first_block, request_id=name)
        self._engine.stores.setdefault(order.request_id, []).append(ticket)
        ticket.add_done_callback(lambda: self._engine.tally.stored(ticket.wait(0.0)))
        ticket.add_done_callback(self._restart_where_missing(order, ticket))

    def _restart_where_missing(self, order: StoreOrder, ticket: Ticket) -> Callable[[], None]:
        def look() -> None:
            result = ticket.try_wait()
            # A block is missing for want of the one before it, which was evicted: the request still has that, if it still runs.
            is_missing = result is not None and len(result.statuses) and result.statuses[0] == BlockStatus.MISSING
            if is_missing and order.request_id in self._engine.stores:
                self._restart(order.request_id, 0)

        return look

    def _restart(self, request_id: str, first_block: int) -> None:
        restart_at = self._engine.restart_at
        restart_at[request_id] = min(first_block, restart_at.get(request_id, first_block))

    def finished(self, finished_ids: set[str]) -> tuple[set[str], set[str]]:
        """Return the finished requests whose blocks were read, and the requests whose loads have ended.

        Args:
            finished_ids: requests that vLLM has finished since the last call.
        """
        engine = self._engine
        self._finished_ids |= finished_ids
        known = engine.held.keys() & self._finished_ids
        sent = {request_id for request_id in known if not engine.reads_source(request_id)}
        for request_id in sent:
            del engine.held[request_id]
            engine.restart_at.pop(request_id, None)
        self._finished_ids &= engine.held.keys()
        received, self._failed_loads = self._failed_loads, set()
        for request_id, load in list(engine.loads.items()):
            result = load.ticket.try_wait()
            if result is not None:
                del engine.loads[request_id]
                engine.tally.loaded(result)
                received.add(request_id)
                if result.num_blocks_ok < len(load.block_ids):
                    if result.outcome is not Outcome.CANCELLED:  # its request is gone, nothing is recomputed
                        self._failures.count_blocks("load", result)
                    self._lose(request_id, load.block_ids[result.num_blocks_ok :])
                    self._failed_loads.discard(request_id)
        return sent, received

    def take_failed_blocks(self) -> set[int]:
        """Return the engine's blocks that loads did not fill, once."""
        failed, self._failed_blocks = self._failed_blocks, set()
        return failed

    def close(self) -> None:
        """End what still touches the engine's memory."""
        for load in self._engine.loads.values():
            load.ticket.cancel()
        self._engine.loads.clear()
        for tickets in self._engine.stores.values():
            for ticket in tickets:
                with self._failures.guard("close"):
                    self._let_go(ticket)
        self._engine.stores.clear()
