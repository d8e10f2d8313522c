"""From a configuration in numbers to the control half's settings: for a cache that is opened, and for one that is simulated."""

from collections.abc import Mapping

from tiercel.config import ResolvedConfig, ResolvedTenant
from tiercel.control.settings import Admission, ControlSettings, TenantSlots
from tiercel.plan import LoadPolicy
from tiercel.tiers.base import TierName

_DEMOTION_CHUNKS = 4
"""Transfer chunks that may be on their way from the host tier to disk at once, for want of room."""


def control_settings(resolved: ResolvedConfig, capacities: Mapping[TierName, int]) -> ControlSettings:
    """Return what the control half is made of. capacities: slots of each tier that there is."""
    config = resolved.config
    return ControlSettings(
        capacities=dict(capacities),
        tokens_per_block=config.tokens_per_block,
        block_bytes=resolved.block_bytes,
        load_policy=LoadPolicy(config.load_policy),
        eviction_policy=config.eviction_policy,
        ssd_eviction_policy=config.ssd_eviction_policy,
        evict_ratio=config.evict_ratio,
        evict_start_threshold=config.evict_start_threshold,
        evict_stop_threshold=config.evict_stop_threshold,
        slru_protected_threshold=config.slru_protected_threshold,
        hit_reward_seconds=config.hit_reward_seconds,
        ssd_admission=Admission(config.ssd_admission),
        ssd_write_budget_per_day=resolved.ssd_write_budget_bytes_per_day,
        min_store_priority=config.min_store_priority,
        ghost_sample_rate=config.ghost_sample_rate,
        auto_tune=config.auto_tune,
        demotion_bytes_max=_DEMOTION_CHUNKS * resolved.transfer_chunk_bytes,
        tenants=tuple(_slots(tenant, capacities) for tenant in resolved.tenants),
    )


def _slots(tenant: ResolvedTenant, capacities: Mapping[TierName, int]) -> TenantSlots:
    """A tenant's slots of the tiers that there are."""
    shares = {tier: tenant.cpu if tier is TierName.HOST else tenant.ssd for tier in capacities}
    return TenantSlots(
        reserves={tier: share.reserve_blocks for tier, share in shares.items()},
        limits={tier: min(share.limit_blocks, capacities[tier]) for tier, share in shares.items()},
    )
