"""What came to the tier's disk and what left it, by vLLM's keys, for vLLM's KV events.

Followers count on each stored chunk being announced as removed when it goes. The cache tells changes by its own keys, and vLLM
names a chunk whenever it stores or finds it; what a disk holds from before a restart is announced when it is first found.
"""

# pyright: reportMissingImports=false

from collections.abc import Iterable, Sequence

from vllm.v1.kv_offload.base import Locality, Medium, OffloadingEvent, OffloadKey

from tiercel import KeyedCache, TierName
from tiercel import Sequence as Block
from tiercel.control import BlockChange, ChangeKind

_ROOM = 1 << 18
"""Changes between two steps; beyond that the disk is listed anew."""
_NAMES_MAX = 1 << 16
"""Chunks whose names are remembered although they are not announced."""


class TierEvents:
    """Turns a cache's changes into events. Called from the scheduler's thread."""

    def __init__(self, cache: KeyedCache, locality: Locality) -> None:
        self._cache = cache
        self._locality = locality
        self._names: dict[bytes, OffloadKey] = {}
        self._announced: dict[bytes, OffloadKey] = {}
        self._found: list[BlockChange] = []
        cache.watch_blocks(_ROOM)

    def name(self, keys: Sequence[OffloadKey], blocks: Sequence[Block]) -> None:
        """Note what vLLM calls blocks that are about to be stored."""
        for key, block in zip(keys, blocks, strict=True):
            own = block.keys().tobytes()
            self._names.pop(own, None)  # the newest is the last
            self._names[own] = key
        while len(self._names) > _NAMES_MAX:
            del self._names[next(iter(self._names))]

    def found(self, key: OffloadKey, block: Block) -> None:
        """Note that a block is on disk, whoever stored it. To be called before the next `take`."""
        own = block.keys().tobytes()
        if own not in self._announced:
            self.name([key], [block])
            self._found.append(BlockChange(ChangeKind.READY, TierName.DISK, own))

    def take(self) -> list[OffloadingEvent]:
        """Return vLLM's events since the last call."""
        changes = self._cache.block_changes()
        found, self._found = self._found, []
        events: list[OffloadingEvent] = []
        # What was found comes first: whatever happened to it before ended with it being there, and what happened since is to
        # have the last word. A pin keeps off an eviction, not a reset, nor a checksum that fails.
        for change in found:
            self._apply(events, change)
        for change in self._listed() if changes is None else changes:
            self._apply(events, change)
        return events

    def _apply(self, events: list[OffloadingEvent], change: BlockChange) -> None:
        """Take in a change, and tell it in events."""
        kind, _, own = change
        if kind is ChangeKind.ALL_GONE:
            self._tell(events, self._announced.values(), removed=True)
            self._announced.clear()
        elif kind is ChangeKind.GONE and own in self._announced:
            self._tell(events, [self._announced.pop(own)], removed=True)
        elif kind is ChangeKind.READY and own in self._names and own not in self._announced:
            self._announced[own] = self._names[own]
            self._tell(events, [self._names[own]], removed=False)

    def _listed(self) -> list[BlockChange]:
        """What must have changed, by what the disk holds now."""
        held = {key.tobytes() for key in self._cache.block_keys(TierName.DISK)}
        gone = [BlockChange(ChangeKind.GONE, TierName.DISK, own) for own in self._announced if own not in held]
        return gone + [BlockChange(ChangeKind.READY, TierName.DISK, own) for own in self._names if own in held]

    def _tell(self, events: list[OffloadingEvent], keys: Iterable[OffloadKey], *, removed: bool) -> None:
        """Add keys to the last event if it says the same of others."""
        named = list(keys)
        if events and events[-1].removed == removed:
            events[-1].keys.extend(named)
        elif named:
            event = OffloadingEvent(keys=named, medium=Medium.STORAGE, removed=removed, locality=self._locality)
            events.append(event)
