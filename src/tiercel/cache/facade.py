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

import time
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tiercel.cache.assembly import assemble
from tiercel.cache.checks import Blocks, looked_up
from tiercel.cache.common import CacheFacade
from tiercel.cache.core import CacheCore
from tiercel.cache.opening import Progress
from tiercel.cache.tickets import Ticket
from tiercel.config import CacheConfig, ModelConfig
from tiercel.control import Lookup, Priority, check_priority
from tiercel.hashing import Sequence
from tiercel.layout import SlotOrder
from tiercel.telemetry.logs import bind_request_id


class Cache(CacheCore, CacheFacade):
    """Stores and gives back the KV blocks of one model. Use as a context manager, sync or async, or call `close`."""

    @classmethod
    def open(
        cls,
        model: ModelConfig,
        config: CacheConfig,
        *,
        progress: Progress | None = None,
        order: SlotOrder = "token_head",
        shares_memory: bool = False,
    ) -> Self:
        """Check the machine, allocate the tiers and bring back what the disk tier holds from before.

        Args:
            model: the model whose KV is cached.
            config: capacities, directories and policies.
            progress: called as progress(stage, done, total) while memory and files are prepared.
            order: of the axes in a slot. With "head_token" the heads of one rank lie in long runs; blocks of one order are
                never taken for the other's.
            shares_memory: other processes will map the tiers' memory (`RankGroup`). If not, it is of huge pages on most machines;
                to shared memory a kernel gives them only when it is told to.

        Raises:
            TypeError: something else than a ModelConfig and a CacheConfig was given.
            ConfigError: a setting does not fit the model or the machine; nothing stays allocated.
            DirectoryLockedError: another process uses a cache directory.
            TierError: a cache directory cannot be used, or memory that was free is not any more.
            RuntimeError: the machine has no thread left; nothing stays allocated.
        """
        return cls(assemble(model, config, progress, order=order, shares_memory=shares_memory))

    def sequence(
        self, tokens: NDArray[np.int32] | NDArray[np.int64] | list[int] | None = None, *, namespace: str = ""
    ) -> Sequence:
        """Start a sequence; `extend` it as it grows, so that only new blocks are hashed.

        Args:
            tokens: int32 or int64[num_tokens], C-contiguous, or a list of ints.
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

    def launch(
        self,
        batch: Iterable[tuple[Lookup, Blocks]],
        *,
        by_layer: bool = False,
        timeout_s: float | None = None,
    ) -> list[Ticket]:
        """Launch several loads, all or none. Arguments and errors as in `load`; after an error no lookup was used."""
        self._dispatcher.check_open()
        loads = self._checks.loads(batch)
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
        client: int = 0,
    ) -> Ticket:
        """Bring stored blocks from slower tiers into the fastest one. Arguments and errors as in `load`.

        Args:
            client: whose queue the moves wait in, as `RemoteBlocks.client` of loads and stores.
        """
        self._dispatcher.check_open()
        with bind_request_id(request_id), looked_up(self.lookup, what, limit_tokens) as lookup:
            with self._observer.launching(self._dispatcher.transfer.queue_depths):
                ticket = self._dispatcher.prefetch(lookup, self._checks.timeout(timeout_s), client)
            return self._observer.launched(ticket)

    def store(
        self,
        sequence: Sequence,
        source: Blocks,
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
