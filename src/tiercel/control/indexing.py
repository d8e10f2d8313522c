"""The index as `control` uses it: made from the settings, and the calls that policies of age and priority look at."""

from typing import Any

from tiercel.control.settings import ControlSettings
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Index, Match, Reservation
from tiercel.tiers.base import TierName

HAS_POLICIES = hasattr(Index, "demote")
"""Whether the native index takes policies, priorities and a clock, and demotes."""


def make_index(settings: ControlSettings) -> Index:
    """The index of all tiers, fastest first, with their eviction policies."""
    tiers = sorted(settings.capacities)
    capacities = [settings.capacities[tier] for tier in tiers]
    options: dict[str, Any] = {"evict_batch": [max(1, int(c * settings.evict_ratio)) for c in capacities]}
    if HAS_POLICIES:
        ssd_policy = settings.ssd_eviction_policy or settings.eviction_policy
        options["policies"] = [ssd_policy if tier is TierName.DISK else settings.eviction_policy for tier in tiers]
        options["slru_protected_hits"] = settings.slru_protected_threshold
        options["hit_reward_s"] = settings.hit_reward_seconds
    return Index(capacities, **options)


def match(index: Index, sequence: TokenSequence, limit_blocks: int | None, now_s: float) -> Match:
    """Pin the leading ready blocks and mark the path as used now."""
    options: dict[str, Any] = {"now_s": now_s} if HAS_POLICIES else {}
    return index.match(sequence, limit_blocks=limit_blocks, **options)


def reserve(
    index: Index, sequence: TokenSequence, tier: int, *, owner: int, blocks: range, now_s: float, priority: int = 0
) -> Reservation:
    """Reserve what a tier lacks of the blocks before `blocks.stop`, if it has every block before `blocks.start`."""
    options: dict[str, Any] = {"now_s": now_s, "priority": priority} if HAS_POLICIES else {}
    return index.reserve(sequence, tier, owner=owner, first_block=blocks.start, limit_blocks=blocks.stop, **options)


def count_present(index: Index, sequence: TokenSequence, tier: int, limit_blocks: int) -> int:
    """How many of the leading blocks a tier has or is being given. Nothing changes."""
    # Asked for nothing behind the limit, the index only tells how far it came.
    probe = index.reserve(sequence, tier, owner=0, first_block=limit_blocks, limit_blocks=limit_blocks)
    return min(limit_blocks, probe.first_block)


def demote(
    index: Index, source: int, target: int, *, owner: int, num_blocks: int, now_s: float
) -> tuple[Match, Reservation] | None:
    """Pin in `source` what `target` lacks of the next path to lose its tail, and reserve it in `target`."""
    if not HAS_POLICIES:
        return None
    index_with_policies: Any = index
    made: tuple[Match, Reservation] | None = index_with_policies.demote(
        source, target, owner=owner, num_blocks=num_blocks, now_s=now_s
    )
    return made


def evict(index: Index, tier: int, num_blocks: int, now_s: float) -> Any:
    """Evict up to `num_blocks` in the policy's order. Returns their slots, uint32[n]."""
    options: dict[str, Any] = {"now_s": now_s} if HAS_POLICIES else {}
    return index.evict(tier, num_blocks, **options)
