"""What one engine looked up, loaded and stored, counted in its own process: a node's status counts for all its clients."""

import threading
from collections import Counter
from collections.abc import Mapping

from tiercel import CacheFacade, Lookup, TierName, TransferResult


class Tally:
    """Counts by the names of `metrics.COUNTERS`. Thread-safe: stores end on other threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def looked_up(self, lookup: Lookup, num_tokens: int) -> None:
        """Count a lookup of so many tokens."""
        size = lookup.sequence.tokens_per_block
        found = {
            f"hit_tokens_{tier.name.lower()}": sum(
                segment.num_blocks * size for segment in lookup.segments if segment.tier is tier
            )
            for tier in (TierName.HOST, TierName.DISK)
        }
        self._add({"lookup_tokens": num_tokens, **found})

    def loaded(self, result: TransferResult) -> None:
        """Count how a load ended."""
        self._add({"loaded_bytes": sum(result.bytes_by_tier.values())})

    def stored(self, result: TransferResult) -> None:
        """Count how a store ended."""
        self._add({"stored_bytes": max(result.bytes_by_tier.values(), default=0)})  # a tier may pass it on to the next

    def recomputed(self) -> None:
        """Count what failed and became recompute."""
        self._add({"recompute": 1})

    def counts(self) -> Mapping[str, int]:
        """What was counted so far."""
        with self._lock:
            return dict(self._counts)

    def _add(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            self._counts.update(counts)


def counts_of_cache(cache: CacheFacade) -> Mapping[str, int]:
    """The same counts by a cache that is this engine's alone, which knows more: what was read and written again, and by whom."""
    activity = cache.stats().activity
    return {
        "lookup_tokens": activity.lookup_tokens,
        "hit_tokens_host": activity.hit_tokens.get("host", 0),
        "hit_tokens_disk": activity.hit_tokens.get("disk", 0),
        "loaded_bytes": sum(transfer.num_bytes for transfer in activity.transfers if transfer.target == "gpu"),
        "stored_bytes": sum(transfer.num_bytes for transfer in activity.transfers if transfer.source == "gpu"),
        "recompute": sum(activity.recompute.values()),
    }
