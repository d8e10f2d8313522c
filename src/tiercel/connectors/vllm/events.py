"""KV events for host memory and disk, in vLLM's format: which blocks, by vLLM's own hashes, came there and which left.

Routers follow these (`--kv-events-config`) and count on each stored block being announced as removed when it goes. The cache
tells changes by its keys; a request names its blocks by both. What nobody has named yet, such as what a disk holds from before a
restart, is announced when the first request finds it; nothing is announced as removed that was not announced as stored, and
nothing as stored before what it follows.

vLLM asks for events at the end of a step only, and takes no step without requests: so while a disk still writes what the last
request left, it is told that there is more to come (`is_behind`).
"""

# pyright: reportMissingImports=false

import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple

from tiercel import Cache, Lookup, Sequence, TierName
from tiercel.control import BlockChange, ChangeKind

MEDIA = {TierName.HOST: "CPU", TierName.DISK: "STORAGE"}

_ROOM = 1 << 18
"""Changes between two steps; beyond that the tiers are listed anew."""
_NAMES_MAX = 1 << 16
"""Blocks whose names are remembered. What comes to a tier after that, as a demotion may, is announced when it is found there."""
_WAITED_FOR_S = 30.0
"""How long behind the last block that was named an engine without requests is kept stepping: a disk that hangs does not keep it
awake, nor from shutting down. What comes later is announced with the next request."""


class BlockName(NamedTuple):
    """What vLLM's events say of a block, and how many come before it."""

    depth: int
    block_hash: Any
    parent_hash: Any
    tokens: list[int]
    lora_id: int | None
    lora_name: str | None


class KvEvents:
    """Turns a cache's changes into events. Called from the scheduler's thread."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._tokens_per_block = cache.geometry.tokens_per_block
        self._names: dict[bytes, BlockName] = {}
        self._announced: dict[TierName, dict[bytes, Any]] = {tier: {} for tier in MEDIA}
        self._found: list[BlockChange] = []
        self._untold: list[Any] = []
        self._named_s = -inf
        cache.watch_blocks(_ROOM)

    def name(self, request: Any, sequence: Sequence, first: int, stop: int) -> None:
        """Note what vLLM calls the blocks [first, stop) of a request."""
        hashes, size, lora = request.block_hashes, self._tokens_per_block, request.lora_request
        stop = min(stop, len(hashes), sequence.num_blocks)
        if stop <= first:
            return
        self._named_s = time.monotonic()
        packed = sequence.keys(first, stop).tobytes()
        width = len(packed) // (stop - first)
        for block in range(first, stop):
            key = packed[(block - first) * width : (block - first + 1) * width]
            self._names.pop(key, None)  # the newest is the last
            self._names[key] = BlockName(
                depth=block,
                block_hash=hashes[block],
                parent_hash=hashes[block - 1] if block else None,
                tokens=list(request.all_token_ids[block * size : (block + 1) * size]),
                lora_id=None if lora is None else lora.adapter_id,
                lora_name=None if lora is None else lora.name,
            )
        while len(self._names) > _NAMES_MAX:
            del self._names[next(iter(self._names))]

    def found(self, request: Any, lookup: Lookup) -> None:
        """Note where a request's blocks lie. To be called before the next `take`: that tells of what changed since the lookup."""
        for segment in lookup.segments:
            first, stop = segment.first_block, segment.first_block + segment.num_blocks
            self.name(request, lookup.sequence, first, stop)
            for key in lookup.sequence.keys(first, stop):
                self._found.append(BlockChange(ChangeKind.READY, segment.tier, key.tobytes()))

    def take(self) -> list[Any]:
        """Return vLLM's events since the last call."""
        self._collect()
        events, self._untold = self._untold, []
        return events

    def is_behind(self) -> bool:
        """Whether an engine without requests is to go on stepping: `take` has something to tell, or soon will have."""
        is_settled = self._cache.settle(0.0)  # before the look at what that has brought
        self._collect()
        return bool(self._untold or not is_settled) and time.monotonic() - self._named_s < _WAITED_FOR_S

    def let_sleep(self) -> None:
        """A reset: vLLM may give its memory back now. What was forgotten is told when it steps again; it tells of its own so."""
        self._named_s = -inf

    def _collect(self) -> None:
        """Make events of what has changed."""
        changes = self._cache.block_changes()
        found, self._found = self._found, []
        # What was found comes first. Whatever happened to it before that ended with it being there, and what happened
        # since is to have the last word: a pin keeps off an eviction, not a reset, nor a checksum that fails.
        self._untold += self._tell(found)
        self._untold += self._tell(self._listed() if changes is None else changes)

    def _listed(self) -> list[BlockChange]:
        """What must have changed, by what the tiers hold now."""
        changes = []
        for tier, announced in self._announced.items():
            held = {key.tobytes() for key in self._cache.block_keys(tier)}
            changes += [BlockChange(ChangeKind.GONE, tier, key) for key in announced if key not in held]
            changes += [BlockChange(ChangeKind.READY, tier, key) for key in self._names if key in held]
        return changes

    def _tell(self, changes: Iterable[BlockChange]) -> Iterator[Any]:
        """Yield events; blocks that follow each other in a sequence or leave together share one."""
        for (kind, tier), group in groupby(changes, key=attrgetter("kind", "tier")):
            keys = [change.key for change in group]
            announced = self._announced[tier]
            if kind is ChangeKind.ALL_GONE:
                yield from self._all_gone()
            elif kind is ChangeKind.READY:
                for run in self._announce(announced, keys):
                    yield _stored(run, tier, self._tokens_per_block)
            else:
                gone = [announced.pop(key) for key in keys if key in announced]
                if gone:
                    yield _removed(gone, tier)

    def _announce(self, announced: dict[bytes, Any], keys: Iterable[bytes]) -> list[list[BlockName]]:
        """Note blocks as announced that were not, and return them in runs, each behind the one that it follows: the index tells
        of the end of a sequence first, and followers take no block whose parent they do not know."""
        names = []
        for key in keys:
            name = self._names.get(key)
            if name is not None and key not in announced:
                announced[key] = name.block_hash
                names.append(name)
        return _joined(sorted(_joined([name] for name in names), key=lambda run: run[0].depth))

    def _all_gone(self) -> Iterator[Any]:
        for tier, announced in self._announced.items():
            if announced:
                yield _removed(list(announced.values()), tier)
                announced.clear()


def _joined(runs: Iterable[list[BlockName]]) -> list[list[BlockName]]:
    """Join neighbours of which the second follows the first."""
    joined: list[list[BlockName]] = []
    for run in runs:
        if joined and run[0].parent_hash == joined[-1][-1].block_hash:
            joined[-1] += run
        else:
            joined.append(list(run))
    return joined


def _stored(run: list[BlockName], tier: TierName, tokens_per_block: int) -> Any:
    from vllm.distributed.kv_events import BlockStored
    from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

    parent = run[0].parent_hash
    return BlockStored(
        block_hashes=[maybe_convert_block_hash(name.block_hash) for name in run],
        parent_block_hash=None if parent is None else maybe_convert_block_hash(parent),
        token_ids=[token for name in run for token in name.tokens],
        block_size=tokens_per_block,
        lora_id=run[0].lora_id,
        medium=MEDIA[tier],
        lora_name=run[0].lora_name,
    )


def _removed(hashes: list[Any], tier: TierName) -> Any:
    from vllm.distributed.kv_events import BlockRemoved
    from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

    return BlockRemoved(block_hashes=[maybe_convert_block_hash(each) for each in hashes], medium=MEDIA[tier])
