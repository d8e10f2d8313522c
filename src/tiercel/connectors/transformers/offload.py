"""Between the engine and Tiercel: the one place where a Tiercel error becomes recompute.

The engine asks what is stored, loads it into a buffer, and offers each settled chunk for storing. Whatever fails is
logged once for each kind, counted, and answered with "nothing was loaded" or "not stored"; no request fails for it.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel import BlockStatus, Cache, DeadlineError, Lookup, Sequence, Ticket, TiercelError, TransferResult
from tiercel.connectors.transformers.prefixes import Resident
from tiercel.connectors.transformers.records import Span, Timeline

_log = logging.getLogger(__name__)


class Offload:
    """One engine's use of a cache; None stands for no cache: nothing is found and nothing stored."""

    def __init__(self, cache: Cache | None, *, timeout_s: float) -> None:
        """timeout_s: bound of every load and of every wait for a buffer."""
        self._cache = cache
        self.timeout_s = timeout_s
        self.failures: Counter[str] = Counter()
        """What failed and is recomputed instead: "load: IO_ERROR" and the like, and how often."""

    def request(self, prompt: NDArray[np.int32], timeline: Timeline) -> "RequestOffload":
        """Begin a request. The caller ends it with `close`."""
        return RequestOffload(self, self._cache, prompt, timeline)

    def observe_prefill(self, *, cached_tokens: int, computed_tokens: int, seconds: float) -> None:
        """Teach the cache what recomputing costs."""
        if self._cache is not None:
            self._cache.observe_prefill(cached_tokens=cached_tokens, computed_tokens=computed_tokens, seconds=seconds)

    def quiesce(self, resident: Resident) -> None:
        """Wait until no store reads the resident's buffer any more; one that takes too long is cancelled."""
        for ticket in resident.tickets:
            try:
                ticket.wait_source(timeout_s=self.timeout_s)
            except DeadlineError as error:
                self.count("store", type(error).__name__, str(error))
                ticket.cancel()  # from then on it leaves the engine's memory alone
        resident.tickets = []

    @contextmanager
    def guard(self, operation: str) -> Iterator[None]:
        """Turn a Tiercel error of the body into a count; the caller goes on as if nothing had been stored."""
        try:
            yield
        except TiercelError as error:
            self.count(operation, type(error).__name__, str(error))

    def count_blocks(self, operation: str, result: TransferResult) -> None:
        """Count a load or a store that lost blocks, once for each way in which it did."""
        failed = Counter(BlockStatus(status).name for status in result.statuses if status != BlockStatus.OK)
        for reason, num_blocks in failed.items():
            self.count(operation, reason, f"{num_blocks} of {result.num_blocks} blocks")

    def count(self, operation: str, reason: str, detail: str) -> None:
        """Count what becomes recompute, and log the first of its kind."""
        kind = f"{operation}: {reason}"
        if not self.failures[kind]:
            _log.warning("%s (%s); recomputed instead, further ones are counted only", kind, detail)
        self.failures[kind] += 1
        if self._cache is not None:
            self._cache.observe_recompute(kind)


class RequestOffload:
    """One request's lookup, load and stores."""

    def __init__(self, owner: Offload, cache: Cache | None, prompt: NDArray[np.int32], timeline: Timeline) -> None:
        self._owner = owner
        self._cache = cache
        self._timeline = timeline
        self._sequence: Sequence | None = None
        self._lookup: Lookup | None = None
        self._stores: list[_Store] = []
        if cache is not None:
            with owner.guard("lookup"):
                self._sequence = cache.sequence(prompt)

    def find(self, limit_tokens: int) -> int:
        """Look up how many leading tokens the cache would load, at most limit_tokens, and pin them."""
        if self._cache is None or self._sequence is None or limit_tokens == 0:
            return 0
        with self._owner.guard("lookup"), self._timeline.measure("lookup", limit_tokens):
            self._lookup = self._cache.lookup(self._sequence, limit_tokens=limit_tokens)
        return 0 if self._lookup is None else self._lookup.num_tokens

    def load(self, resident: Resident, chunk_tokens: int) -> Mapping[str, int]:
        """Load what `find` pinned into the resident's buffer, whose KV from the first token on is lost by that.

        Returns:
            Leading tokens that arrived, by tier; together a multiple of chunk_tokens. A load that fails part-way gives
            what came before the first failed block.
        """
        cache, lookup = self._cache, self._lookup
        if cache is None or lookup is None:
            return {}
        size = cache.geometry.tokens_per_block
        detail = "+".join(dict.fromkeys(segment.tier.name.lower() for segment in lookup.segments))
        num_tokens = 0
        with self._owner.guard("load"), self._timeline.measure("load", lookup.num_tokens, detail):
            target = resident.buffer.blocks(cache.geometry, 0, lookup.num_blocks)
            result = cache.load(lookup, target, timeout_s=self._owner.timeout_s).wait()
            if not result.ok:
                self._owner.count_blocks("load", result)
            num_tokens = result.num_blocks_ok * size // chunk_tokens * chunk_tokens
            resident.buffer.fetch(0, num_tokens)
        return _tokens_by_tier(lookup, num_tokens, size)

    def extend(self, tokens: NDArray[np.int32]) -> None:
        """Tell the sequence what was generated."""
        if self._sequence is not None:
            self._sequence.extend(tokens)

    def store(self, resident: Resident, start: int, stop: int) -> None:
        """Offer tokens [start, stop), now settled, for storing, without waiting.

        The whole sequence is offered: what is stored already is skipped, what was evicted meanwhile is stored again.
        """
        cache, sequence = self._cache, self._sequence
        if cache is None or sequence is None:
            return
        with self._owner.guard("store"):
            resident.buffer.publish(start, stop)
            source = resident.buffer.blocks(cache.geometry, 0, stop // cache.geometry.tokens_per_block)
            began = self._timeline.now()
            ticket = cache.store(sequence, source)
            resident.tickets.append(ticket)
            self._stores.append(_Store(ticket, began, stop - start))

    def num_stores_running(self) -> int:
        """Stores of this request that have not ended."""
        return sum(1 for store in self._stores if self._poll(store) is None)

    def close(self) -> None:
        """Unpin, and record the stores; one still running is recorded up to now."""
        if self._lookup is not None:
            self._lookup.release()
        for store in self._stores:
            seconds = self._poll(store)
            stop, detail = (self._timeline.now(), "running") if seconds is None else (store.began + seconds, "")
            self._timeline.spans.append(Span("store", store.began, stop, store.num_tokens, detail))

    def _poll(self, store: "_Store") -> float | None:
        """Seconds that a store took; None while it runs."""
        result = store.ticket.try_wait()
        if result is None:
            return None
        if not result.ok and not store.reported:
            store.reported = True
            self._owner.count_blocks("store", result)
        return result.seconds


@dataclass
class _Store:
    ticket: Ticket
    began: float
    num_tokens: int
    reported: bool = False


def _tokens_by_tier(lookup: Lookup, num_tokens: int, tokens_per_block: int) -> Mapping[str, int]:
    """How many of the leading num_tokens each tier gave."""
    tokens: Counter[str] = Counter()
    for segment in lookup.segments:
        start = segment.first_block * tokens_per_block
        stop = min(start + segment.num_blocks * tokens_per_block, num_tokens)
        if stop > start:
            tokens[segment.tier.name.lower()] += stop - start
    return dict(tokens)
