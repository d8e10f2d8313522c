"""The facade: a cache of KV blocks over the tiers of one machine.

    cache = Cache.open(model, config)
    sequence = cache.sequence(prompt)
    ticket = cache.load(sequence, engine.blocks(ids), ...)      # or lookup(), look at it, then load(lookup, ...)
    loaded = ticket.wait().num_blocks_ok                         # or `(await ticket).num_blocks_ok`
    ...                                                          # the engine computes what is left
    cache.store(sequence, engine.blocks(ids)).wait_source()

It joins the control half (what to move) to the data half (moving it) and owns what lies between: tickets, deadlines and the
order in which plans are applied. Every method but `close` and `reset` returns in microseconds and may be called from any
thread; waiting happens on tickets. Errors are `tiercel.errors`; a full queue is `ThrottledError`, never a silent drop.
"""

import asyncio
import atexit
import os
import time
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiercel.cache.assembly import Assembly, Progress, assemble
from tiercel.cache.bounded import Errand
from tiercel.cache.checks import ArgumentChecks, looked_up
from tiercel.cache.dispatch import Dispatcher
from tiercel.cache.forks import forget, refuse_in_forked_children
from tiercel.cache.observing import Observer
from tiercel.cache.reporting import Reporter
from tiercel.cache.running import Hooks
from tiercel.cache.tickets import Ticket
from tiercel.cache.upkeep import Upkeep
from tiercel.config import CacheConfig, ModelConfig
from tiercel.control import HitCurve, Lookup, Priority, check_priority
from tiercel.hashing import Sequence, root_key
from tiercel.layout import BlockGeometry, EngineBlocks
from tiercel.plan import Move
from tiercel.telemetry.logs import bind_request_id
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tiers.base import TierName

_RESET_TIMEOUT_S = 30.0
_NAMESPACES_KEPT = 4096
"""Namespaces whose root key is not computed again for each sequence."""


class Cache:
    """Stores and gives back the KV blocks of one model. Use as a context manager, sync or async, or call `close`."""

    def __init__(self, assembly: Assembly) -> None:
        """Use `Cache.open`."""
        self.geometry: BlockGeometry = assembly.geometry
        self.devices = assembly.devices
        """GPUs that engines' memory lies on; `devices.attach` prepares one."""
        self._assembly = assembly
        self._observer = Observer(assembly)
        self._reporter = Reporter(assembly)
        timeout_s = assembly.config.transfer_timeout_s
        self._upkeep = Upkeep((lambda: self._dispatcher.relieve(timeout_s), assembly.checkpoint_if_due))
        hooks = Hooks(
            on_move=self._observer.observe_move,
            after_move=self._after_move,
            on_throttled=self._observer.throttled,
            on_pressure=self._upkeep.wake,
        )
        try:
            self._dispatcher = Dispatcher(assembly.control, assembly.tiers, assembly.transfer_settings, hooks)
        except BaseException:
            assembly.close(drained=True)
            raise
        self._checks = ArgumentChecks(assembly)
        self._root_key = lru_cache(maxsize=_NAMESPACES_KEPT)(root_key)
        self._process = os.getpid()
        self._closing = Errand(self._release, name="tiercel-close")
        atexit.register(self.close)
        refuse_in_forked_children(self._dispatcher)
        try:
            self._upkeep.start()
            self._observer.start()
            self._reporter.start(
                self._dispatcher.transfer.queue_depths, lambda: {"running": self._dispatcher.num_running}
            )
        except BaseException:
            self.close()
            raise

    def _after_move(self, move: Move) -> None:
        if move.target is TierName.DISK and self._assembly.checkpoint_is_due:
            self._upkeep.wake()

    @classmethod
    def open(cls, model: ModelConfig, config: CacheConfig, *, progress: Progress | None = None) -> "Cache":
        """Check the machine, allocate the tiers and bring back what the disk tier holds from before.

        Args:
            model: the model whose KV is cached.
            config: capacities, directories and policies.
            progress: called as progress(stage, done, total) while memory and files are prepared.

        Raises:
            TypeError: something else than a ModelConfig and a CacheConfig was given.
            ConfigError: a setting does not fit the model or the machine; nothing stays allocated.
            DirectoryLockedError: another process uses a cache directory.
            TierError: a cache directory cannot be used.
            RuntimeError: the machine has no thread left; nothing stays allocated.
        """
        return cls(assemble(model, config, progress))

    def sequence(self, tokens: NDArray[np.int32] | NDArray[np.int64] | None = None, *, namespace: str = "") -> Sequence:
        """Start a sequence; `extend` it as it grows, so that only new blocks are hashed.

        Args:
            tokens: int32 or int64[num_tokens], C-contiguous.
            namespace: tenant, LoRA or cache salt; sequences of different namespaces share nothing.
        """
        root = self._root_key(self._assembly.fingerprint, namespace)
        return Sequence(root, self.geometry.tokens_per_block, tokens, origin=self._checks.origin)

    def lookup(
        self,
        sequence: Sequence,
        *,
        limit_tokens: int | None = None,
        engine_tokens: int = 0,
        request_id: str | None = None,
    ) -> Lookup:
        """Find the leading blocks that are stored and decide how many of them are worth loading.

        Args:
            sequence: one of this cache's sequences.
            limit_tokens: load at most this many tokens; an engine computes at least a prompt's last token itself.
            engine_tokens: leading tokens that the engine's own cache holds: no block of these is loaded, and the plan weighs
                only what lies behind. Block i of a load's target is block `first_block + i` of the sequence.
            request_id: what to log, record and trace it under; by default what `bind_request_id` bound. So in the other calls.

        Returns:
            What was found. It pins those blocks until it is launched, released or destroyed.
        """
        started = time.monotonic()
        self._dispatcher.check_open()
        limit = self._checks.lookup(sequence, limit_tokens, engine_tokens, request_id)
        queued = self._dispatcher.transfer.queued_bytes
        lookup = self._assembly.control.lookup(
            sequence, now_s=started, limit_tokens=limit, engine_tokens=engine_tokens, queued_bytes=queued
        )
        self._observer.observe_lookup(lookup, time.monotonic() - started, request_id)
        return lookup

    def load(
        self,
        what: Lookup | Sequence,
        target: EngineBlocks,
        *,
        limit_tokens: int | None = None,
        by_layer: bool = False,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Bring stored blocks into the engine's memory: block i of what is loaded to block i of `target`.

        Args:
            what: a lookup, or a sequence that is looked up now.
            target: at least as many blocks as are to be loaded; must stay valid until the ticket has resolved.
            limit_tokens: as in `lookup`, with a sequence only. timeout_s: deadline; by default `transfer_timeout_s`.
            by_layer: load the first layers first, as far as they lie in host memory; `Ticket.wait_layer` waits for one.

        Raises:
            ThrottledError: too many moves are waiting; the lookup keeps its pins.
            StaleTicketError: the lookup was used before, or the cache was reset since.
            ValueError: `target` is too small, read-only, of another geometry or names a block twice, the lookup is another
                cache's, or the timeout is not positive.
        """
        with bind_request_id(request_id), looked_up(self.lookup, what, limit_tokens) as lookup:
            return self.launch([(lookup, target)], by_layer=by_layer, timeout_s=timeout_s)[0]

    def launch(
        self,
        batch: Iterable[tuple[Lookup, EngineBlocks]],
        *,
        by_layer: bool = False,
        timeout_s: float | None = None,
    ) -> list[Ticket]:
        """Launch several loads, all or none. Arguments and errors as in `load`; after an error no lookup was used."""
        self._dispatcher.check_open()
        loads = list(batch)
        for lookup, target in loads:
            self._checks.target(target, lookup.num_blocks)
        reachable = [
            (lookup, self.devices.reach(target, layer_blocks=lookup.num_blocks if by_layer else None))
            for lookup, target in loads
        ]
        with self._observer.launching(self._dispatcher.transfer.queue_depths):
            tickets = self._dispatcher.load(reachable, self._checks.timeout(timeout_s))
        return [self._observer.launched(ticket) for ticket in tickets]

    def prefetch(
        self,
        what: Lookup | Sequence,
        *,
        limit_tokens: int | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Bring stored blocks from slower tiers into the fastest one. Arguments and errors as in `load`."""
        self._dispatcher.check_open()
        with bind_request_id(request_id), looked_up(self.lookup, what, limit_tokens) as lookup:
            with self._observer.launching(self._dispatcher.transfer.queue_depths):
                ticket = self._dispatcher.prefetch(lookup, self._checks.timeout(timeout_s))
            return self._observer.launched(ticket)

    def store(
        self,
        sequence: Sequence,
        source: EngineBlocks,
        *,
        first_block: int = 0,
        priority: Priority = 0,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Store the sequence's full blocks that are not stored yet: block first_block + i from block i of `source`.

        Call it again as the sequence grows: only new blocks move. `Ticket.wait_source` tells when the engine's memory may be
        written again, `Ticket.wait` when every tier has its copy.

        Args:
            source: the engine's blocks from `first_block` on; what lies behind the last full one is left alone.
            first_block: the source's first block in the sequence. Behind blocks that were evicted meanwhile nothing can be
                stored; give the sequence from block 0 where the engine has it.
            priority: 0 to 100, one for all or int[num_blocks of source]. Lower ones are evicted first; the first one below
                `min_store_priority` and all behind it are not stored and end as MISSING.

        Raises:
            ThrottledError: too many moves are waiting; nothing was started.
            ValueError: `source` is of another geometry or holds only some of the heads, the sequence is another cache's,
                `first_block` is negative, `priority` does not fit, or the timeout is not positive.
        """
        self._dispatcher.check_open()
        self._checks.sequence(sequence)
        self._checks.source(source, first_block)
        check_priority(priority, source.num_blocks)
        timeout_s, memory = self._checks.timeout(timeout_s), self.devices.reach(source)
        with bind_request_id(request_id):
            with self._observer.launching(self._dispatcher.transfer.queue_depths):
                ticket = self._dispatcher.store(sequence, memory, first_block, timeout_s, priority)
            self._observer.record_store(sequence, first_block, ticket.num_blocks)
            return self._observer.launched(ticket)

    def observe_prefill(self, *, cached_tokens: int, computed_tokens: int, seconds: float) -> None:
        """Tell how long the engine took to compute tokens behind a prefix; `load_policy: auto` learns from it."""
        self._assembly.control.prefill.observe(cached_tokens, computed_tokens, seconds)

    def observe_recompute(self, reason: str) -> None:
        """Tell that an error of ours became recompute, and which; status and metrics count it."""
        self._observer.recompute(reason)

    def reset(self) -> None:
        """Forget every block in every tier, durably, because the weights changed. Open tickets are cancelled; what other threads
        launch before it returns raises ThrottledError.

        Raises:
            DeadlineError: a device did not finish its transfers in time; nothing was forgotten, call again.
            TierFailedError: the disk tier could not be emptied durably; call again before storing anything.
        """
        self._dispatcher.check_open()
        self._dispatcher.reset(_RESET_TIMEOUT_S, self._assembly.empty_durably)

    def stats(self) -> StatusSnapshot:
        """What the cache holds and did, frozen; the same that `tiercel stats` and the metrics show."""
        return self._reporter.snapshot()

    def hit_curve(self, capacities_blocks: Iterable[int] | None = None) -> HitCurve:
        """The hit rate that an LRU cache of each capacity would have had, from 1/64 to four times this one's. Raises ValueError
        beyond that, or if `ghost_sample_rate` is 0."""
        return self._assembly.control.hit_curve(capacities_blocks)

    def close(self) -> None:
        """Cancel open tickets, write the disk tier's checkpoint and release everything. Idempotent; bounded.

        An exception that a signal raises here ends the wait, not the closing: the process's end waits for that.
        In a process forked from the one that opened the cache this does nothing; every other call raises CacheClosedError.
        """
        if os.getpid() != self._process:
            return
        self._closing.wait()
        atexit.unregister(self.close)

    def _release(self) -> None:
        self._upkeep.end()
        drained = self._dispatcher.close()
        forget(self._dispatcher)
        # What is stuck in a transfer has had its time; a checkpoint alone gets as much.
        drained = self._upkeep.join(self._assembly.transfer_settings.close_timeout_s if drained else 0.0) and drained
        try:
            self._reporter.close()
            self._observer.close()
        finally:
            self._assembly.close(drained=drained)

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> "Cache":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)
