"""The cache as a node serves it: what was looked up outside of it, by native code that shares its index, is launched here.

`ServedCache` is a `Cache` for whoever speaks for callers in other processes (`tiercel.node`): it lends the index out, takes what
was found in it as a lookup, takes note of what they read of its memory themselves, and tells what deciding costs.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tiercel.cache.facade import Cache
from tiercel.cache.observing import TIER_NAMES, Looked
from tiercel.cache.reporting import NodeCounts
from tiercel.config import CacheConfig
from tiercel.control import Lookup, adopt
from tiercel.costs import PrefillCurve, TransferCost
from tiercel.hashing import Sequence
from tiercel.index import Index, Match
from tiercel.tiers.base import TierName

_READ_BYTES_PER_S_MAX = 1e12


class Costs(NamedTuple):
    """What loading and computing cost as of now; `tiers` has each one's cost, and the bytes that wait to be loaded from it."""

    prefill: PrefillCurve
    num_prefills: int
    tiers: dict[TierName, tuple[TransferCost, int]]


class ServedCache(Cache):
    """A cache whose lookups may be made elsewhere. Made and closed as a `Cache`."""

    @property
    def index(self) -> Index:
        """The index. Only `match` may be called on it, by whoever hands what was found to `adopt` or releases it."""
        return self._assembly.control.index

    @property
    def config(self) -> CacheConfig:
        """What it was opened with."""
        return self._assembly.config

    @property
    def fingerprint(self) -> bytes:
        """Of its blocks."""
        return self._assembly.fingerprint

    @property
    def origin(self) -> int:
        """By which it knows its sequences."""
        return self._checks.origin

    @property
    def tiers(self) -> tuple[TierName, ...]:
        """The tiers that there are, as the index numbers them."""
        return self._assembly.control.tiers

    def adopt(self, sequence: Sequence, match: Match, blocks: range) -> Lookup:
        """Make a lookup of what was found, to be launched or released.

        Raises:
            ValueError: the blocks are not all among those found, or the sequence is another cache's; the match keeps its pins.
        """
        self._checks.sequence(sequence)
        return adopt(self.index, self.tiers, sequence, match, blocks)

    def note_lookup(
        self,
        sequence: Sequence,
        limit_blocks: int | None,
        segments: Iterable[tuple[int, int, int]],
        num_pending: int,
        seconds: float,
    ) -> None:
        """Count, record and learn from a lookup that was made elsewhere, as `lookup` does of its own.

        Args:
            segments: (tier's number in the index, first block, count) of what was found.
        """
        by_tier: dict[str, int] = {}
        num_matched = 0
        for number, first, count in segments:
            name = TIER_NAMES[self.tiers[number]]
            by_tier[name] = by_tier.get(name, 0) + count
            num_matched = first + count
        self._assembly.control.note_lookup(sequence, limit_blocks, num_matched)
        looked = Looked(sequence, num_matched, list(by_tier.items()), num_pending)
        self._observer.observe_looked(looked, seconds, 0, None)

    @property
    def read_tier(self) -> int | None:
        """The tier, as the index numbers it, that other processes may read themselves while they pin its blocks. None where there
        is none, or where tenants share what the queues give each of them."""
        tiers = self.tiers
        return tiers.index(TierName.HOST) if TierName.HOST in tiers and not self.config.tenant_list else None

    def note_read(self, sequence: Sequence, blocks: range, seconds: float, *, client: int) -> None:
        """Count and learn from a load that another process made of the host tier's memory, as `launch` does of its own.

        Args:
            blocks: of the sequence.
            seconds: as that process tells; what is faster than memory is not believed.
            client: as of `prefetch`.
        """
        host = self._assembly.host
        assert host is not None, "nobody was told of slots in a tier that there is not"
        num_bytes = len(blocks) * self.geometry.block_bytes
        seconds = max(seconds, num_bytes / _READ_BYTES_PER_S_MAX)
        host.count_read(len(blocks), seconds)
        self._dispatcher.note_load(sequence, blocks.stop, num_bytes, seconds, self._checks.timeout(None), client)
        self._observer.observe_read(len(blocks), num_bytes, seconds)

    def decline(self, tiers: Iterable[TierName]) -> None:
        """Note that what was found in these tiers was not thought worth its cost."""
        for tier in tiers:
            self._assembly.control.transfer_costs[tier].decline()

    def costs(self) -> Costs:
        """What a choice between loading and computing goes by."""
        control, queued = self._assembly.control, self._dispatcher.transfer.queued_bytes()
        return Costs(
            control.prefill.curve,
            control.prefill.num_observations,
            {tier: (control.transfer_costs[tier].cost, queued.get(tier, 0)) for tier in control.tiers},
        )

    def tell_node(self, counts: Callable[[], NodeCounts]) -> None:
        """Have the status and the metrics tell from now on what the node counts. counts: called on any thread."""
        self._reporter.tell_node(counts)

    def queue_depths(self) -> dict[str, int]:
        """Moves that wait or run, by lane."""
        return self._dispatcher.transfer.queue_depths()
