"""One request at a time through the real cache: look up, load, check, compute, store. When each step happens is `run`'s business."""

import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from tiercel import Cache, Sequence, ThrottledError, Ticket
from tiercel.tune.replay.accounts import Accounts
from tiercel.tune.replay.memory import BlockIds, EngineBuffers
from tiercel.tune.replay.setup import ReplaySetup
from tiercel.tune.traces import Trace

_STORE_WAIT_S = 120.0
"""Longest wait for memory that stores still read; each has a deadline of its own before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A request whose prompt is being computed.

    Attributes:
        ids: the engine's blocks that hold the prompt's full blocks.
        num_loaded: leading blocks that the cache gave back.
        load_s: time from the lookup until they were there.
        prefill_s: time that computing the rest takes.
    """

    request: int
    sequence: Sequence
    ids: BlockIds
    num_loaded: int
    load_s: float
    prefill_s: float


class Server:
    """Serves requests of a trace. Not thread-safe."""

    def __init__(self, cache: Cache, trace: Trace, setup: ReplaySetup, buffers: EngineBuffers, accounts: Accounts) -> None:
        self._cache = cache
        self._trace = trace
        self._setup = setup
        self._buffers = buffers
        self._accounts = accounts
        self._tokens_per_block = cache.geometry.tokens_per_block
        self._storing: deque[tuple[Ticket, BlockIds]] = deque()

    def load(self, request: int) -> Serving:
        """Look a request's prompt up and load what is worth it. Returns when the blocks are there."""
        trace, accounts = self._trace, self._accounts
        num_tokens = int(trace.input_tokens[request])
        num_blocks = int(accounts.full_blocks[request])
        ids = self._take(num_blocks)
        sequence = self._cache.sequence(trace.tokens(request))
        began_s = time.monotonic()
        # The last token is computed in any case: its logits are the first token's.
        lookup = self._cache.lookup(sequence, limit_tokens=max(0, num_tokens - 1))
        accounts.matched_blocks[request] = lookup.matched_blocks
        segments, num_loaded = lookup.segments, 0
        if lookup.num_blocks == 0:
            lookup.release()
        else:
            target = self._buffers.blocks(ids[: lookup.num_blocks])
            try:
                outcome = self._cache.load(lookup, target, timeout_s=self._setup.deadline_s).wait()
            except ThrottledError:
                lookup.release()
                accounts.checks.throttled_requests += 1
            else:
                num_loaded = outcome.num_blocks_ok
                accounts.checks.failed_blocks += outcome.num_blocks - num_loaded
        load_s = time.monotonic() - began_s
        accounts.loaded(request, segments, num_loaded)
        cached_tokens = num_loaded * self._tokens_per_block
        prefill = self._setup.engine.prefill
        prefill_s = prefill.seconds(cached_tokens, num_tokens - cached_tokens)
        accounts.prefill_busy_s += prefill_s
        accounts.prefill_saved_s += prefill.seconds(0, num_tokens) - prefill_s
        return Serving(
            request=request,
            sequence=sequence,
            ids=ids,
            num_loaded=num_loaded,
            load_s=load_s,
            prefill_s=prefill_s,
        )

    def compute(self, serving: Serving) -> None:
        """Compare what was loaded, and fill the rest of the prompt's blocks."""
        keys = serving.sequence.keys(0, len(serving.ids))
        count = serving.num_loaded
        wrong = list(self._buffers.wrong(serving.ids[:count], keys[:count]))
        self._accounts.checks.restored(serving.request, 0, count, wrong)
        self._buffers.compute(serving.ids[count:], keys[count:])

    def store(self, serving: Serving) -> Ticket | None:
        """Store the prompt. The engine's blocks come back when the cache has read them."""
        return self._store(serving.sequence, serving.ids, 0)

    def store_output(self, serving: Serving) -> Ticket | None:
        """Store the blocks that decoding filled, if the engine does that."""
        trace, request = self._trace, serving.request
        count = int(trace.output_tokens[request])
        if not self._setup.engine.stores_output or count == 0:
            return None
        sequence, first_block = serving.sequence, serving.sequence.num_blocks
        # Nothing says what was generated: each answer is taken for one of its own.
        sequence.extend(np.full(count, trace.num_blocks + request, np.int32))
        ids = self._take(sequence.num_blocks - first_block)
        self._buffers.compute(ids, sequence.keys(first_block, sequence.num_blocks))
        return self._store(sequence, ids, first_block)

    def _store(self, sequence: Sequence, ids: BlockIds, first_block: int) -> Ticket | None:
        if len(ids) == 0:
            return None
        try:
            ticket = self._cache.store(sequence, self._buffers.blocks(ids), first_block=first_block)
        except ThrottledError:
            self._accounts.checks.throttled_requests += 1
            self._buffers.give_back(ids)
            return None
        self._storing.append((ticket, ids))
        return ticket

    def reclaim(self) -> None:
        """Take back the blocks of stores that need them no longer."""
        while self._storing and self._storing[0][0].source_free:
            self._buffers.give_back(self._storing.popleft()[1])

    def _take(self, num_blocks: int) -> BlockIds:
        self.reclaim()
        while self._buffers.num_free < num_blocks:
            self._storing[0][0].wait_source(_STORE_WAIT_S)
            self.reclaim()
        return self._buffers.take(num_blocks)
