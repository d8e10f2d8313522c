"""What happens to a cache whose directory goes away or is copied while it runs, and whose clocks jump."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, PROMPT_BLOCKS, SmallEngine, config, load_prompt, store_prompt
from tests.helpers.tier_samples import ODD_BLOCK_BYTES, disk_options, load, random_bytes, random_labels, slots_of, store
from tiercel import Cache
from tiercel.errors import TiercelError
from tiercel.tiers.base import BlockStatus
from tiercel.tiers.disk import DiskTier


@contextmanager
def mounted(where: Path) -> Iterator[None]:
    """A small filesystem of its own; the test is skipped where none may be mounted."""
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256m", "tiercel-test", str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode != 0:
        pytest.skip(f"needs the right to mount a filesystem: {'not root' if done is None else done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], capture_output=True, check=False)


def test_a_mount_that_turns_read_only_costs_stores_and_no_load_and_comes_back(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk"):
        settings = config(tmp_path / "disk" / "cache", host=32, disk=160, ssd_direct_io=False)
        with Cache.open(MODEL, settings) as cache:
            engine = SmallEngine(cache.geometry)
            assert store_prompt(cache, engine, 0) == PROMPT_BLOCKS
            # Files that are open for writing keep a whole filesystem from turning; a mount turns for every path on it.
            where = str(tmp_path / "disk")
            subprocess.run(["mount", "--bind", where, where], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
            try:
                with pytest.raises(OSError, match="Read-only"):
                    (tmp_path / "disk" / "probe").touch()
                for seed in range(1, 4):
                    store_prompt(cache, engine, seed)
                assert load_prompt(cache, engine, 0) == PROMPT_BLOCKS, "what was stored is not read any more"
            finally:
                subprocess.run(["umount", where], check=True)
            cache._assembly.control.index.check()
        with Cache.open(MODEL, settings) as cache:
            assert load_prompt(cache, SmallEngine(cache.geometry), 0) == PROMPT_BLOCKS


def test_a_read_only_mount_is_refused_at_the_start_and_nothing_stays_behind(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk"):
        settings = config(tmp_path / "disk" / "cache", host=32, disk=160, ssd_direct_io=False)
        with Cache.open(MODEL, settings) as cache:
            assert store_prompt(cache, SmallEngine(cache.geometry), 0) == PROMPT_BLOCKS
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises((TiercelError, OSError), match="mounted read-only"):
            Cache.open(MODEL, settings)
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "disk")], check=True)
        with Cache.open(MODEL, settings) as cache:
            assert load_prompt(cache, SmallEngine(cache.geometry), 0) == PROMPT_BLOCKS


def test_a_mount_that_vanishes_leaves_a_cache_that_reads_on_and_closes(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk"):
        settings = config(
            tmp_path / "disk" / "cache", host=32, disk=160, ssd_direct_io=False, journal_checkpoint_bytes=4096
        )
        with Cache.open(MODEL, settings) as cache:
            engine = SmallEngine(cache.geometry)
            assert store_prompt(cache, engine, 0) == PROMPT_BLOCKS
            subprocess.run(["umount", "--lazy", str(tmp_path / "disk")], check=True)
            assert not list((tmp_path / "disk").iterdir())
            for seed in range(1, 4):
                store_prompt(cache, engine, seed)
            assert load_prompt(cache, engine, 0) == PROMPT_BLOCKS
            cache._assembly.control.index.check()
        assert not list((tmp_path / "disk").iterdir()), "something was written below the mount point"


def test_a_cache_whose_directory_is_removed_goes_on_and_closes(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    with Cache.open(MODEL, config(directory, host=32, disk=160, journal_checkpoint_bytes=4096)) as cache:
        engine = SmallEngine(cache.geometry)
        assert store_prompt(cache, engine, 0) == PROMPT_BLOCKS
        shutil.rmtree(directory)
        for seed in range(1, 12):  # checkpoints come due, and cannot be written
            store_prompt(cache, engine, seed)
            assert load_prompt(cache, engine, seed) == PROMPT_BLOCKS
        load_prompt(cache, engine, 0)
        cache._assembly.control.index.check()
    with Cache.open(MODEL, config(directory, host=32, disk=160)) as cache:
        assert store_prompt(cache, SmallEngine(cache.geometry), 0) == PROMPT_BLOCKS, "a new start begins an empty cache"


def test_a_copy_made_while_the_cache_runs_serves_no_wrong_byte(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path / "a", host=8, disk=60, journal_checkpoint_bytes=4096)) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(6):
            store_prompt(cache, engine, seed)
            for path in sorted((tmp_path / "a").rglob("*")):  # file by file, each from another moment
                target = tmp_path / "b" / path.relative_to(tmp_path / "a")
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file() and (seed % 2 == 0 or path.name.startswith("data")):
                    with suppress(FileNotFoundError):  # a checkpoint that got its name meanwhile
                        shutil.copyfile(path, target)
            store_prompt(cache, engine, seed + 100)
        with Cache.open(MODEL, config(tmp_path / "b", host=8, disk=60)) as copy:
            for seed in [*range(6), *range(100, 106)]:
                load_prompt(copy, SmallEngine(copy.geometry), seed)
            copy._assembly.control.index.check()


def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    jumps = iter([-1e9, 1e9, -3600.0, 0.0] * 1000)
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    settings = config(tmp_path, host=32, disk=160)
    for _ in range(2):
        with Cache.open(MODEL, settings) as cache:
            engine = SmallEngine(cache.geometry)
            store_prompt(cache, engine, 1)
            assert load_prompt(cache, engine, 1) == PROMPT_BLOCKS
            cache.stats()


@pytest.mark.parametrize("jump_s", [1e9, -1e9, 3600.0])
def test_a_clock_of_the_disk_tier_that_jumps_costs_no_block(tmp_path: Path, jump_s: float) -> None:
    now = [1000.0]
    tier = DiskTier.open(disk_options(tmp_path), clock=lambda: now[0])
    random = np.random.default_rng(1)
    rows, labels = random_bytes(random, 4, ODD_BLOCK_BYTES), random_labels(random, 4)
    assert store(tier, slots_of(0, 1, 2, 3), rows, labels) == [BlockStatus.OK] * 4
    now[0] += jump_s
    assert store(tier, slots_of(4, 5, 6, 7), rows, labels) == [BlockStatus.OK] * 4
    statuses, got = load(tier, slots_of(0, 1, 2, 3))
    assert statuses == [BlockStatus.OK] * 4
    np.testing.assert_array_equal(got, rows)
    tier.close()
    tier = DiskTier.open(disk_options(tmp_path))
    assert sorted(tier.recovered.slots.tolist()) == list(range(8))
    tier.close()
