"""A cache whose host memory outlives it: hits, order of use, resets, capacities, and what is said and shown."""

import json
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, PROMPT_BLOCKS, SmallEngine, config, load_prompt, store_prompt, tokens
from tiercel import Cache, ConfigError, TierName, cli
from tiercel.config.resources import MemoryProbe, probe_host_memory, probe_memory


def opened(arena: Path, disk: Path | None = None, *, host: int = 3 * PROMPT_BLOCKS, **settings: object) -> Cache:
    values = {"cpu_arena_dir": str(arena), "cpu_hugepages": False, **settings}
    return Cache.open(MODEL, config(disk, host=host, disk=64 * PROMPT_BLOCKS if disk else 0, **values))


def found(cache: Cache, seed: int) -> int:
    with cache.lookup(cache.sequence(tokens(PROMPT_BLOCKS, seed=seed))) as lookup:
        return lookup.matched_blocks


def test_every_hit_is_there_after_a_restart_byte_for_byte_and_is_told(arena_directory: Path) -> None:
    with opened(arena_directory) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(3):
            store_prompt(cache, engine, seed)
        assert cache.stats().tiers[0].recovered == 0
    with opened(arena_directory) as cache:
        assert [load_prompt(cache, engine, seed) for seed in range(3)] == [PROMPT_BLOCKS] * 3
        (tier,) = cache.stats().tiers
        assert (tier.recovered, tier.num_ready, tier.num_free) == (3 * PROMPT_BLOCKS, 3 * PROMPT_BLOCKS, 0)
        assert cache.stats().notes == ()


def test_what_was_used_last_before_a_restart_is_evicted_last_after_it(arena_directory: Path) -> None:
    with opened(arena_directory) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(3):
            store_prompt(cache, engine, seed)
        assert load_prompt(cache, engine, 0) == PROMPT_BLOCKS
    with opened(arena_directory) as cache:
        store_prompt(cache, engine, 3)
        assert [found(cache, seed) for seed in (0, 2, 3)] == [PROMPT_BLOCKS] * 3
        assert found(cache, 1) < PROMPT_BLOCKS


def test_what_came_up_from_disk_is_warm_too(arena_directory: Path, tmp_path: Path) -> None:
    with opened(arena_directory, tmp_path) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(5):
            store_prompt(cache, engine, seed)
        assert found(cache, 0) == PROMPT_BLOCKS
        assert load_prompt(cache, engine, 0) == PROMPT_BLOCKS
        assert cache.settle(10)
    with opened(arena_directory, tmp_path) as cache:
        with cache.lookup(cache.sequence(tokens(PROMPT_BLOCKS, seed=0))) as lookup:
            assert [segment.tier for segment in lookup.segments] == [TierName.HOST]
        assert load_prompt(cache, engine, 0) == PROMPT_BLOCKS
        tiers = {tier.name: tier.recovered for tier in cache.stats().tiers}
        assert tiers["disk"] == 5 * PROMPT_BLOCKS
        assert tiers["host"] > 2 * PROMPT_BLOCKS


def test_a_reset_empties_it_for_the_next_process_as_well(arena_directory: Path) -> None:
    with opened(arena_directory) as cache:
        engine = SmallEngine(cache.geometry)
        store_prompt(cache, engine, 0)
        cache.reset()
        short = cache.sequence(tokens(1, seed=1))
        assert cache.store(short, engine.fill(short)).wait(10).ok
    with opened(arena_directory) as cache:
        assert (found(cache, 0), cache.stats().tiers[0].recovered) == (0, 1)


def test_another_model_begins_cold_and_says_so(arena_directory: Path) -> None:
    with opened(arena_directory) as cache:
        store_prompt(cache, SmallEngine(cache.geometry), 0)
    with opened(arena_directory, tokens_per_block=32) as cache:
        (note,) = cache.stats().notes
        assert "began cold" in note
        assert "another model" in note
        assert cache.stats().tiers[0].recovered == 0


def test_a_smaller_host_tier_keeps_what_fits(arena_directory: Path) -> None:
    with opened(arena_directory) as cache:
        engine = SmallEngine(cache.geometry)
        store_prompt(cache, engine, 0)
    with opened(arena_directory, host=PROMPT_BLOCKS // 2) as cache:
        assert 0 < load_prompt(cache, engine, 0) <= PROMPT_BLOCKS // 2


def test_memory_that_the_arena_takes_already_counts_as_room(
    arena_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(arena_directory) as cache:
        num_bytes = cache.stats().tiers[0].num_slots * cache.geometry.block_bytes
    left = MemoryProbe(available_bytes=1000, limited_by="a test")
    monkeypatch.setattr("tiercel.config.resources.probe_memory", lambda: left)
    assert probe_host_memory(config(host=8)) == left
    assert probe_host_memory(config(host=8, cpu_arena_dir=str(arena_directory))).available_bytes >= num_bytes
    opened(arena_directory).close()
    with pytest.raises(ConfigError, match="num_cpu_blocks"):
        opened(arena_directory, host=30 * PROMPT_BLOCKS)


def test_a_directory_on_a_disk_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    assert probe_memory().available_bytes > 0
    with pytest.raises(ConfigError, match=r"cpu_arena_dir = .*tmpfs.*no memory"):
        opened(tmp_path / "arena")
    assert not (tmp_path / "arena").exists()
    opened(tmp_path / "arena", tmp_path / "disk", enable_cpu=False).close()


def test_ls_shows_what_an_arena_holds_and_who_uses_it(
    arena_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*options: str) -> list[dict[str, object]]:
        assert cli.main(["ls", str(arena_directory), "--json", *options]) == 0
        found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
        return found

    with opened(arena_directory) as cache:
        store_prompt(cache, SmallEngine(cache.geometry), 0)
        (report,) = listed()
        assert report["num_blocks"] == PROMPT_BLOCKS
        assert report["fingerprint"] == cache.stats().fingerprint
        assert "process" in str(report["holder"])
    (folder,) = listed("--keys")
    runs = folder["runs"]
    assert isinstance(runs, list)
    assert [run["num_blocks"] for run in runs] == [PROMPT_BLOCKS]
    (arena_directory / "arena.records").write_bytes(b"?")
    (report,) = listed()
    assert "arena cannot be read" in str(report["problem"])
