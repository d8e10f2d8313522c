"""KV events for host memory and disk, in vLLM's format: which blocks, by vLLM's own hashes, came there and which left.

Routers follow these (`--kv-events-config`) and count on each stored block being announced as removed when it goes. The cache
tells changes by its keys; a request names its blocks by both. What nobody has named yet, such as what a disk holds from before a
restart, is announced when the first request loads it; nothing is announced as removed that was not announced as stored.
"""

# pyright: reportMissingImports=false

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tiercel import Cache, Lookup, Sequence, TierName
from tiercel.control import BlockChange, ChangeKind

MEDIA = {TierName.HOST: "CPU", TierName.DISK: "STORAGE"}

_ROOM = 1 << 18
"""Changes between two steps; beyond that the tiers are listed anew."""
_NAMES_MAX = 1 << 16
"""Blocks whose names are remembered although no tier announced has them."""


class BlockName(NamedTuple):
    """What vLLM's events say of a block."""

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
        self._loaded: list[BlockChange] = []
        cache.watch_blocks(_ROOM)

    def name(self, request: Any, sequence: Sequence, first: int, stop: int) -> None:
        """Note what vLLM calls the blocks [first, stop) of a request."""
        hashes, size, lora = request.block_hashes, self._tokens_per_block, request.lora_request
        stop = min(stop, len(hashes), sequence.num_blocks)
        if stop <= first:
            return
        packed = sequence.keys(first, stop).tobytes()
        width = len(packed) // (stop - first)
        for block in range(first, stop):
            key = packed[(block - first) * width : (block - first + 1) * width]
            self._names.pop(key, None)  # the newest is the last
            self._names[key] = BlockName(
                block_hash=hashes[block],
                parent_hash=hashes[block - 1] if block else None,
                tokens=list(request.all_token_ids[block * size : (block + 1) * size]),
                lora_id=None if lora is None else lora.adapter_id,
                lora_name=None if lora is None else lora.name,
            )
        while len(self._names) > _NAMES_MAX:
            del self._names[next(iter(self._names))]

    def loading(self, request: Any, lookup: Lookup) -> None:
        """Note that a request loads blocks, which lie where the lookup found them."""
        for segment in lookup.segments:
            first, stop = segment.first_block, segment.first_block + segment.num_blocks
            self.name(request, lookup.sequence, first, stop)
            for key in lookup.sequence.keys(first, stop):
                self._loaded.append(BlockChange(ChangeKind.READY, segment.tier, key.tobytes()))

    def take(self) -> list[Any]:
        """Return vLLM's events since the last call."""
        changes = self._cache.block_changes()
        loaded, self._loaded = self._loaded, []
        events = list(self._tell(self._listed() if changes is None else changes))
        # What changed since a lookup does not undo what it found: the lookup's blocks are pinned.
        return events + list(self._tell(loaded))

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
        run: list[BlockName] = []
        gone: list[Any] = []
        medium_tier: TierName | None = None
        for kind, tier, key in changes:
            if run and (kind is not ChangeKind.READY or tier is not medium_tier):
                yield _stored(run, medium_tier, self._tokens_per_block)
                run = []
            if gone and (kind is not ChangeKind.GONE or tier is not medium_tier):
                yield _removed(gone, medium_tier)
                gone = []
            if kind is ChangeKind.ALL_GONE:
                yield from self._all_gone()
                continue
            medium_tier = tier
            announced = self._announced[tier]
            if kind is ChangeKind.GONE:
                if key in announced:
                    gone.append(announced.pop(key))
                continue
            name = self._names.get(key)
            if name is None or key in announced:
                continue
            if run and name.parent_hash != run[-1].block_hash:
                yield _stored(run, tier, self._tokens_per_block)
                run = []
            announced[key] = name.block_hash
            run.append(name)
        if run:
            yield _stored(run, medium_tier, self._tokens_per_block)
        if gone:
            yield _removed(gone, medium_tier)

    def _all_gone(self) -> Iterator[Any]:
        for tier, announced in self._announced.items():
            if announced:
                yield _removed(list(announced.values()), tier)
                announced.clear()


def _stored(run: list[BlockName], tier: TierName | None, tokens_per_block: int) -> Any:
    from vllm.distributed.kv_events import BlockStored
    from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

    assert tier is not None
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


def _removed(hashes: list[Any], tier: TierName | None) -> Any:
    from vllm.distributed.kv_events import BlockRemoved
    from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

    assert tier is not None
    return BlockRemoved(block_hashes=[maybe_convert_block_hash(each) for each in hashes], medium=MEDIA[tier])
