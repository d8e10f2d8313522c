"""How many of a request's tokens can be loaded, asked by vLLM before it admits the request.

    lookup -> nothing on disk -> promise what is in host memory
           -> on disk         -> prefetch, "ask again" ... -> lookup -> promise what is really there
           -> being written   -> "ask again", for a short time -> lookup

Blocks on disk are staged in host memory before anything is promised, so that a corrupt or failing one is found while vLLM
goes on with other requests, and is simply not promised. Without a host tier they are promised and loaded from disk directly.
A request is told to ask again until its deadline at most. A few are staged at a time, in the order in which vLLM asks: all at
once, each would take as long as all together, and past their deadlines every one would be computed.
"""

from tiercel import BlockStatus, CacheFacade, Lookup, Ticket, TierName
from tiercel.connectors.vllm.failures import Failures
from tiercel.connectors.vllm.plans import log_id
from tiercel.connectors.vllm.requests import TrackedRequest
from tiercel.connectors.vllm.tally import Tally

_PENDING_WAIT_S = 0.25
"""Longest wait for blocks that another request is storing: a copy to host memory takes milliseconds."""

_STAGED_AT_ONCE = 4
"""Requests that are staged at the same time: enough to keep the disk busy between two questions of vLLM's."""

_HARMLESS = (int(BlockStatus.OK), int(BlockStatus.NO_SPACE), int(BlockStatus.MISSING))
"""Outcomes of staging after which what is still on disk may be loaded from there."""


class Staging:
    """Answers vLLM's question, and keeps what was promised pinned in the request."""

    def __init__(
        self, cache: CacheFacade, failures: Failures, tally: Tally, *, timeout_s: float, has_host_tier: bool
    ) -> None:
        self._cache = cache
        self._failures = failures
        self._tally = tally
        self._timeout_s = timeout_s
        self._has_host_tier = has_host_tier
        self._under_way: list[Ticket] = []

    def promise(self, tracked: TrackedRequest, engine_tokens: int) -> int | None:
        """Return the tokens behind `engine_tokens` that will be loaded, 0 for none, or None: ask again.

        Args:
            engine_tokens: leading tokens that vLLM's own cache holds, whole blocks.
        """
        sequence = tracked.update_tokens()
        if sequence is None:
            return 0
        asked = (engine_tokens, tracked.request.num_tokens)
        if tracked.lookup is not None and tracked.promised_for == asked:
            return tracked.lookup.num_tokens  # vLLM had no room for it and asks again
        tracked.drop_lookup()
        limit = tracked.request.num_tokens - 1
        if limit // sequence.tokens_per_block * sequence.tokens_per_block <= engine_tokens:
            return 0
        remaining_s = tracked.remaining_s(self._timeout_s)
        if tracked.staging is not None:
            tracked.staged = tracked.staging.try_wait()
            if tracked.staged is None:
                return None
            tracked.staging = None
            if any(status not in _HARMLESS for status in tracked.staged.statuses.tolist()):
                self._failures.count_blocks("stage", tracked.staged)
        if tracked.waits_to_stage and remaining_s > 0 and not self._has_room():
            return None
        name = log_id(tracked.request.request_id)
        lookup = self._cache.lookup(sequence, limit_tokens=limit, engine_tokens=engine_tokens, request_id=name)
        self._tally.looked_up(lookup, limit)
        try:
            waits = self._must_wait(tracked, lookup, limit, remaining_s)
        except BaseException:
            lookup.release()
            raise
        if waits:
            lookup.release()
            return None
        lookup = self._without_unsafe(tracked, lookup, engine_tokens)
        if lookup.num_blocks == 0:
            lookup.release()
            return 0
        tracked.lookup, tracked.promised_for = lookup, asked
        return lookup.num_tokens

    def _must_wait(self, tracked: TrackedRequest, lookup: Lookup, limit: int, remaining_s: float) -> bool:
        """Whether to ask again: blocks are being stored, or are on disk and being staged from now on."""
        if lookup.num_pending and self._timeout_s - remaining_s < min(_PENDING_WAIT_S, self._timeout_s):
            return True
        if not self._is_unsafe(lookup) or tracked.staged is not None or remaining_s <= 0:
            return False
        tracked.waits_to_stage = not self._has_room()
        if tracked.waits_to_stage:
            return True
        # From the first block on: host memory takes no block without those before it.
        name = log_id(tracked.request.request_id)
        whole = self._cache.lookup(lookup.sequence, limit_tokens=min(limit, _end_tokens(lookup)), request_id=name)
        with self._failures.guard("stage"):
            tracked.staging = self._cache.prefetch(whole, timeout_s=remaining_s, request_id=name)
            self._under_way.append(tracked.staging)
        whole.release()
        return tracked.staging is not None

    def _has_room(self) -> bool:
        """Whether another request may be staged."""
        self._under_way = [ticket for ticket in self._under_way if not ticket.done]
        return len(self._under_way) < _STAGED_AT_ONCE

    def _is_unsafe(self, lookup: Lookup) -> bool:
        return self._has_host_tier and any(segment.tier is not TierName.HOST for segment in lookup.segments)

    def _without_unsafe(self, tracked: TrackedRequest, lookup: Lookup, engine_tokens: int) -> Lookup:
        """Leave out what lies on disk, unless it was staged and only had no room."""
        if not self._is_unsafe(lookup):
            return lookup
        staged = tracked.staged
        if staged is not None and all(status in _HARMLESS for status in staged.statuses.tolist()):
            return lookup
        first = next(segment for segment in lookup.segments if segment.tier is not TierName.HOST)
        limit = first.first_block * lookup.sequence.tokens_per_block
        lookup.release()
        name = log_id(tracked.request.request_id)
        return self._cache.lookup(lookup.sequence, limit_tokens=limit, engine_tokens=engine_tokens, request_id=name)


def _end_tokens(lookup: Lookup) -> int:
    return (lookup.first_block + lookup.num_blocks) * lookup.sequence.tokens_per_block
