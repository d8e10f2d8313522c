"""Tenants of a cache: what is reserved stays, in every tier and over a restart; nobody holds more than its limit."""

from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, CacheConfig, TierName
from tiercel.control import ControlSettings, TenantSlots
from tiercel.telemetry.snapshot import TenantStatus

FAIR = {
    "a": {"namespaces": ["team-a", "team-a-lora"], "reserve": {"cpu": "25%", "ssd": 32}, "weight": 4},
    "b": {"namespaces": "team-b", "limit": {"cpu": "75%", "ssd": "75%"}},
}


def fair_config(directory: Path | None = None, *, host: int = 32, disk: int = 0, **settings: object) -> CacheConfig:
    return config(directory, host=host, disk=disk, tenants=FAIR, **settings)


def store(cache: Cache, engine: SmallEngine, namespace: str, seed: int, num_blocks: int = 4) -> int:
    sequence = cache.sequence(tokens(num_blocks, seed), namespace=namespace)
    return cache.store(sequence, engine.fill(sequence)).wait(10).num_blocks_ok


def load(cache: Cache, engine: SmallEngine, namespace: str, seed: int, num_blocks: int = 4) -> int:
    """Load what is stored of a prompt, and see that it is what was stored."""
    sequence = cache.sequence(tokens(num_blocks, seed), namespace=namespace)
    engine.poison()
    loaded = cache.load(sequence, engine.blocks(0, num_blocks)).wait(10).num_blocks_ok
    engine.check(sequence, loaded)
    return loaded


def shares(cache: Cache, tier: str) -> dict[str, TenantStatus]:
    return next({share.name: share for share in t.tenants} for t in cache.stats().tiers if t.name == tier)


def flood(cache: Cache, engine: SmallEngine, namespace: str, *, first_seed: int = 1000, num_prompts: int = 60) -> None:
    for seed in range(first_seed, first_seed + num_prompts):
        store(cache, engine, namespace, seed)
    assert cache.settle(10)


@pytest.mark.parametrize("policy", ["lru", "2q", "cost"])
def test_a_flood_leaves_a_tenants_reserved_blocks_in_every_tier_and_over_a_restart(tmp_path: Path, policy: str) -> None:
    settings = fair_config(tmp_path, host=32, disk=128, eviction_policy=policy)
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(8):
            assert store(cache, engine, "team-a" if seed % 2 else "team-a-lora", seed) == 4
        flood(cache, engine, "team-b")
        flood(cache, engine, "", first_seed=5000)
        assert shares(cache, "host")["a"].held == 8, "a quarter of the host tier"
        assert shares(cache, "disk")["a"].held == 32
        assert shares(cache, "disk")["b"].held <= 96
        assert shares(cache, "disk")["b"].evicted > 0
        assert sum(share.held for share in shares(cache, "disk").values()) == 128
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        assert shares(cache, "disk")["a"].held == 32, "recovered blocks are their tenants'"
        flood(cache, engine, "team-b", first_seed=9000)
        flood(cache, engine, "", first_seed=12000)
        assert shares(cache, "disk")["a"].held == 32
        for seed in range(8):
            assert load(cache, engine, "team-a" if seed % 2 else "team-a-lora", seed) == 4


def test_demotions_leave_what_is_reserved(tmp_path: Path) -> None:
    settings = fair_config(
        tmp_path, host=32, disk=128, ssd_admission="on_evict", evict_start_threshold=0.8, evict_ratio=0.1
    )
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(2):
            store(cache, engine, "team-a", seed)
        flood(cache, engine, "team-b", num_prompts=80)
        assert shares(cache, "host")["a"].held == 8
        assert shares(cache, "disk")["a"].held == 0, "what does not leave is not demoted"
        assert 0 < shares(cache, "disk")["b"].held <= 96
        assert load(cache, engine, "team-a", 0) == 4


def test_a_tenant_at_its_limit_gives_its_own_blocks_though_the_tier_has_room() -> None:
    with Cache.open(MODEL, fair_config(host=40)) as cache:
        engine = SmallEngine(cache.geometry)
        flood(cache, engine, "team-b", num_prompts=20)
        share = shares(cache, "host")["b"]
        assert (share.held, share.limit, share.evicted) == (30, 30, 50)
        assert load(cache, engine, "team-b", 1019) == 4


def test_a_watermark_below_what_is_reserved_leaves_that_alone_and_comes_to_rest() -> None:
    tenants = {"a": {"namespaces": "team-a", "reserve": "90%"}}
    with Cache.open(MODEL, config(host=40, evict_start_threshold=0.5, evict_ratio=0.1, tenants=tenants)) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(9):
            store(cache, engine, "team-a", seed)
        assert cache.settle(10)
        assert shares(cache, "host")["a"].held == 36
        store(cache, engine, "", 77)
        assert cache.settle(10)
        assert shares(cache, "host")["a"].held == 36
        assert not cache._assembly.control.relief.is_due()


def test_watermarks_never_go_below_what_is_reserved() -> None:
    reserved = TenantSlots(reserves={TierName.HOST: 12}, limits={TierName.HOST: 40})
    settings = ControlSettings(
        capacities={TierName.HOST: 40}, tokens_per_block=16, block_bytes=1, evict_start_threshold=0.5, evict_ratio=0.4,
        tenants=(reserved, reserved),
    )  # fmt: skip
    marks = settings.watermarks(TierName.HOST)
    assert (marks.high, marks.low) == (24, 24)


def test_a_root_that_a_server_made_is_its_namespaces_tenants() -> None:
    with Cache.open(MODEL, fair_config()) as cache:
        engine = SmallEngine(cache.geometry)
        own_root = cache.sequence(tokens(1, 1), namespace="team-a and a secret").root
        cache.assign_root(own_root, "team-a")
        cache.assign_root(bytes(16), "somebody")
        assert store(cache, engine, "team-a and a secret", 1) == 4
        assert shares(cache, "host")["a"].held == 4


def test_a_cache_without_tenants_tells_of_none() -> None:
    with Cache.open(MODEL, config(host=8)) as cache:
        assert [tier.tenants for tier in cache.stats().tiers] == [()]
