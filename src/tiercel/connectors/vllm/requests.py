"""What the connector remembers of each of vLLM's requests.

new -> (asked: staging, looked up) -> loading -> running -> finished
                                         └────── preempted ──┘
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tiercel import CacheFacade, Lookup, Sequence, Ticket, TransferResult
from tiercel.connectors.vllm.failures import Failures
from tiercel.connectors.vllm.keys import Adapters, is_cacheable, make_sequence


@dataclass(kw_only=True, eq=False)
class TrackedRequest:
    """One request.

    Attributes:
        request: vLLM's object; its tokens grow.
        num_prompt_tokens: tokens that it came with.
        sequence: None if the request cannot be cached.
        block_ids: vLLM's blocks, by block of the sequence.
        num_ordered: leading blocks that are stored, or were ordered to be.
        num_preemptions: of the request, when it was last looked at.
        deadline_s: until when it may be told to ask again; set when it first asks.
        staging: brings its blocks from disk to host memory.
        staged: how that ended.
        waits_to_stage: others are staged before it.
        lookup: what it was promised and has not got yet.
        promised_for: tokens that vLLM held and tokens that the request had when it was promised.
        is_loading: vLLM waits for its load to be reported.
        gave_up: a load of it failed: it is computed.
        is_outdated: it has KV from before a reset, perhaps of other weights; kept again once it is computed anew.
    """

    request: Any
    num_prompt_tokens: int
    sequence: Sequence | None
    block_ids: list[int] = field(default_factory=list)
    num_ordered: int = 0
    num_preemptions: int = 0
    deadline_s: float | None = None
    staging: Ticket | None = None
    staged: TransferResult | None = None
    waits_to_stage: bool = False
    lookup: Lookup | None = None
    promised_for: tuple[int, int] = (-1, -1)
    is_loading: bool = False
    gave_up: bool = False
    is_outdated: bool = False

    def update_tokens(self) -> Sequence | None:
        """Tell the sequence what was generated. Returns it."""
        sequence = self.sequence
        if sequence is not None:
            known = sequence.num_tokens
            if known < len(self.request.all_token_ids):
                sequence.extend(self.request.all_token_ids[known:])
        return sequence

    def forget_blocks(self) -> None:
        """vLLM took its blocks back: it starts over, with stores where they were."""
        self.num_preemptions = self.request.num_preemptions
        self.block_ids, self.is_outdated = [], False
        self.deadline_s, self.staged = None, None

    def remaining_s(self, timeout_s: float) -> float:
        """Seconds that it may still be told to ask again; counts from the first call on."""
        now = time.monotonic()
        if self.deadline_s is None:
            self.deadline_s = now + timeout_s
        return self.deadline_s - now

    def drop_lookup(self) -> None:
        """Give back what was pinned."""
        if self.lookup is not None:
            self.lookup.release()
            self.lookup = None

    def release(self) -> None:
        """Give back everything that waits for the request to run."""
        self.drop_lookup()
        if self.staging is not None:
            self.staging.cancel()
            self.staging = None


class Requests:
    """The requests that vLLM has not finished."""

    def __init__(self, cache: CacheFacade, failures: Failures, *, has_named_items: bool) -> None:
        self._cache = cache
        self._failures = failures
        self._has_named_items = has_named_items
        self._adapters = Adapters()
        self._tracked: dict[str, TrackedRequest] = {}

    def __iter__(self) -> Iterator[TrackedRequest]:
        return iter(self._tracked.values())

    def get(self, request_id: str) -> TrackedRequest | None:
        """Return a request that was met before."""
        return self._tracked.get(request_id)

    def track(self, request: Any) -> TrackedRequest:
        """Return a request, met now or before."""
        tracked = self._tracked.get(request.request_id)
        if tracked is None:
            sequence = None
            if is_cacheable(request, has_named_items=self._has_named_items):
                with self._failures.guard("request"):  # a node may not let this engine use the namespace
                    sequence = make_sequence(self._cache, request, self._adapters)
            tracked = TrackedRequest(
                request=request,
                num_prompt_tokens=len(request.all_token_ids),
                sequence=sequence,
                num_preemptions=request.num_preemptions,
            )
            self._tracked[request.request_id] = tracked
        return tracked

    def forget(self, request_id: str) -> TrackedRequest | None:
        """Return a request for the last time."""
        return self._tracked.pop(request_id, None)
