"""The real cache as `simulate.Serving` sees one: what engines ask of it becomes calls on it, with bytes made and checked.

A block's life in the engine's memory: of a load, lent, written to by the cache, compared, given back; of a store, lent, filled
while the engine computes, read by the cache, given back. So the memory that a replay needs is that of transfers under way.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiercel import Cache, Lookup, Sequence, ThrottledError, Ticket, TierName
from tiercel.tune.replay.clocks import ReplayClock
from tiercel.tune.replay.memory import BlockIds, EngineBuffers
from tiercel.tune.simulate.caches import OnLoaded

_WRONG_KEPT_MAX = 20
_CHORE_BYTES = 1 << 20
"""Bytes that are filled or compared in one step."""


@dataclass(kw_only=True)
class Checks:
    """Counts of what was compared and of what went otherwise than planned.

    Attributes:
        restored_blocks: blocks that the cache gave back; each was compared byte for byte.
        wrong_blocks: those of them that held other bytes than were stored.
        wrong: the first of them, in words.
        failed_blocks: blocks that a load promised and did not bring: recomputed.
    """

    restored_blocks: int = 0
    wrong_blocks: int = 0
    wrong: list[str] = field(default_factory=list)
    failed_blocks: int = 0


@dataclass(eq=False, kw_only=True)
class _Use:
    """Blocks of the engine's memory: those of a sequence from `first` on, filled or compared as far as `at`."""

    buffers: EngineBuffers
    sequence: Sequence
    first: int
    ids: BlockIds
    ticket: Ticket | None = None
    at: int = 0
    returned: bool = False

    def give_back(self) -> None:
        self.buffers.give_back(self.ids)
        self.returned = True

    def next_part(self) -> tuple[BlockIds, NDArray[np.uint8]]:
        """The next blocks to fill or compare, and their keys."""
        start, stop = self.at, min(len(self.ids), self.at + max(1, _CHORE_BYTES // self.buffers.block_bytes))
        self.at = stop
        return self.ids[start:stop], self.sequence.keys(self.first + start, self.first + stop)


class RealCache:
    """A `ServedCache` over a `Cache`."""

    def __init__(self, cache: Cache, buffers: EngineBuffers, clock: ReplayClock) -> None:
        self.clock = clock
        self.checks = Checks()
        self.tokens_per_block = cache.geometry.tokens_per_block
        self.tiers = tuple(TierName[tier.name.upper()] for tier in cache.stats().tiers)
        self._cache = cache
        self._buffers = buffers
        self._loading: deque[_Use] = deque()
        self._storing: deque[_Use] = deque()
        self._filling: dict[int, _Use] = {}
        """By the identity of the sequence that will be stored."""

    def sequence(self, tokens: NDArray[np.int32]) -> Sequence:
        return self._cache.sequence(tokens)

    def observe_prefill(self, cached_tokens: int, computed_tokens: int, seconds: float) -> None:
        self._cache.observe_prefill(cached_tokens=cached_tokens, computed_tokens=computed_tokens, seconds=seconds)

    def lookup(self, sequence: Sequence, *, limit_tokens: int, engine_tokens: int) -> Lookup:
        return self._cache.lookup(sequence, limit_tokens=limit_tokens, engine_tokens=engine_tokens)

    def load(self, lookup: Lookup, on_loaded: OnLoaded) -> bool:
        use = self._use(lookup.sequence, range(lookup.first_block, lookup.first_block + lookup.num_blocks))
        try:
            use.ticket = self._cache.load(lookup, self._buffers.blocks(use.ids))
        except ThrottledError:
            lookup.release()
            use.give_back()
            return False
        self._loading.append(use)
        self.clock.after_load(use.ticket, self._loaded, (use, on_loaded))
        return True

    def _loaded(self, ended: tuple[_Use, OnLoaded]) -> None:
        use, on_loaded = ended
        assert use.ticket is not None, "what was loaded has a ticket"
        outcome = use.ticket.wait()
        self.checks.failed_blocks += outcome.num_blocks - outcome.num_blocks_ok
        on_loaded(outcome.num_blocks_ok)
        self.clock.add_chore(lambda: self._compare(use))

    def _compare(self, use: _Use) -> bool:
        """Compare some more blocks with what was stored. Returns whether there are more."""
        if use.returned:
            return False
        assert use.ticket is not None, "what was loaded has a ticket"
        num_ok, checks = use.ticket.wait().num_blocks_ok, self.checks
        first = use.first + use.at
        ids, keys = use.next_part()
        num_given = max(0, min(len(ids), num_ok - (first - use.first)))
        wrong = self._buffers.wrong(ids[:num_given], keys[:num_given])
        checks.restored_blocks += num_given
        checks.wrong_blocks += len(wrong)
        for at in wrong[: _WRONG_KEPT_MAX - len(checks.wrong)]:
            key = keys[at].tobytes().hex()
            checks.wrong.append(f"block {first + at} of a prompt (key {key}): other bytes than were stored")
        if use.at < len(use.ids):
            return True
        use.give_back()
        return False

    def expect_store(self, sequence: Sequence, blocks: range) -> None:
        if len(blocks) == 0:
            return
        use = self._filling[id(sequence)] = self._use(sequence, blocks)
        self.clock.add_chore(lambda: self._fill(use))

    def _fill(self, use: _Use) -> bool:
        """Fill some more blocks. Returns whether there are more."""
        if use.at < len(use.ids):
            self._buffers.compute(*use.next_part())
        return use.at < len(use.ids)

    def store(self, sequence: Sequence, blocks: range) -> None:
        use = self._filling.pop(id(sequence), None)
        if use is None:
            use = self._use(sequence, blocks)
        assert (use.first, len(use.ids)) == (blocks.start, len(blocks)), "what is stored is what was expected"
        while self._fill(use):
            pass
        try:
            use.ticket = self._cache.store(sequence, self._buffers.blocks(use.ids), first_block=blocks.start)
        except ThrottledError:
            use.give_back()  # counted by the cache
            return
        self._storing.append(use)
        self.clock.after_store(use.ticket)

    def _use(self, sequence: Sequence, blocks: range) -> _Use:
        """Lend blocks; where there are too few, transfers under way are waited for."""
        self._reclaim()
        while self._buffers.num_free < len(blocks):
            if self._loading:
                oldest = self._loading[0]
                while self._compare(oldest):
                    pass
            else:
                oldest = self._storing[0]
                assert oldest.ticket is not None, "what is being stored has a ticket"
                oldest.ticket.wait_source()
            self._reclaim()
        return _Use(buffers=self._buffers, sequence=sequence, first=blocks.start, ids=self._buffers.take(len(blocks)))

    def _reclaim(self) -> None:
        while self._loading and self._loading[0].returned:
            self._loading.popleft()
        while self._storing and self._storing[0].ticket is not None and self._storing[0].ticket.source_free:
            self._storing.popleft().give_back()
