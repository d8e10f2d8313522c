"""The index as `control` uses it: made from the settings, and one question that it answers in passing."""

from tiercel.control.settings import ControlSettings
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Index
from tiercel.tiers.base import TierName


def make_index(settings: ControlSettings) -> Index:
    """The index of all tiers, fastest first, with their eviction policies."""
    tiers = sorted(settings.capacities)
    capacities = [settings.capacities[tier] for tier in tiers]
    ssd_policy = settings.ssd_eviction_policy or settings.eviction_policy
    return Index(
        capacities,
        policies=[ssd_policy if tier is TierName.DISK else settings.eviction_policy for tier in tiers],
        evict_batch=[max(1, int(capacity * settings.evict_ratio)) for capacity in capacities],
        slru_protected_hits=settings.slru_protected_threshold,
        hit_reward_s=settings.hit_reward_seconds,
        tokens_per_block=settings.tokens_per_block,
        tenants=[
            ([tenant.reserves[tier] for tier in tiers], [tenant.limits[tier] for tier in tiers])
            for tenant in settings.tenants
        ],
    )


def count_present(index: Index, sequence: TokenSequence, tier: int, limit_blocks: int) -> int:
    """How many of the leading blocks a tier has or is being given. Nothing changes."""
    # Asked for nothing behind the limit, the index only tells how far it came.
    probe = index.reserve(sequence, tier, owner=0, first_block=limit_blocks, limit_blocks=limit_blocks)
    return min(limit_blocks, probe.first_block)
