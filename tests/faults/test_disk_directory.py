"""Directories that a disk tier must not use as they are: taken, foreign, mixed up, read-only or full."""

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, config
from tests.helpers.tier_samples import (
    ODD_BLOCK_BYTES,
    disk_options,
    load,
    random_bytes,
    random_labels,
    slots_of,
    store,
    stripe_folder,
)
from tiercel import Cache
from tiercel.errors import ConfigError, DirectoryLockedError, FormatError, TierError
from tiercel.tiers.base import BlockStatus
from tiercel.tiers.disk import DiskTier

OK = BlockStatus.OK


def fill(directory: Path, *more: Path, num_slots: int = 16) -> None:
    """Make a tier with blocks in slots 0 to 7 and close it."""
    random = np.random.default_rng(5)
    tier = DiskTier.open(disk_options(directory, *more, num_slots=num_slots))
    rows = random_bytes(random, 8, ODD_BLOCK_BYTES)
    assert store(tier, np.arange(8, dtype=np.uint32), rows, random_labels(random, 8)) == [OK] * 8
    tier.close()


def recovered_slots(directory: Path, *more: Path, num_slots: int = 16) -> list[int]:
    tier = DiskTier.open(disk_options(directory, *more, num_slots=num_slots))
    slots = tier.recovered.slots
    assert load(tier, slots)[0] == [OK] * len(slots)
    tier.close()
    return sorted(slots.tolist())


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_a_second_tier_on_the_directory_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    tier = DiskTier.open(disk_options(tmp_path))
    with pytest.raises(DirectoryLockedError, match=rf"in use by process {os.getpid()}, since .*ssd_cache_dir"):
        DiskTier.open(disk_options(tmp_path))
    tier.close()
    DiskTier.open(disk_options(tmp_path)).close()


def test_another_process_on_the_directory_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tiercel.tiers.disk_directory import DirectoryLock\n"
        "lock = DirectoryLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    fill(tmp_path)
    command = [sys.executable, "-c", script, str(stripe_folder(tmp_path))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryLockedError, match=f"process {holder.pid},"):
            DiskTier.open(disk_options(tmp_path))
        holder.kill()
        holder.wait()
    assert recovered_slots(tmp_path) == list(range(8))


def test_a_lock_file_left_by_a_dead_process_does_not_matter(tmp_path: Path) -> None:
    fill(tmp_path)
    (stripe_folder(tmp_path) / "lock").write_text("process 1, since the beginning\n")
    assert recovered_slots(tmp_path) == list(range(8))


def test_another_fingerprint_is_left_alone_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path)
    before = everything_in(stripe_folder(tmp_path))
    with caplog.at_level(logging.WARNING):
        DiskTier.open(replace(disk_options(tmp_path), fingerprint=b"another model's fingerprint")).close()
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "other_cache_found"]
    assert f"rm -r '{stripe_folder(tmp_path)}'" in record.getMessage()
    assert everything_in(stripe_folder(tmp_path)) == before
    assert recovered_slots(tmp_path) == list(range(8))


def test_another_fingerprint_that_is_in_use_is_not_named_for_removal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = DiskTier.open(disk_options(tmp_path))
    try:
        DiskTier.open(replace(disk_options(tmp_path), fingerprint=b"another model's fingerprint")).close()
    finally:
        held.close()
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "other_cache_found"]
    assert f"It is in use by process {os.getpid()}," in record.getMessage()
    assert "rm -r" not in record.getMessage()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"format_version": 0}, "format version 0"),
        ({"fingerprint": "ff" * 32}, "belongs to fingerprint"),
        ({"surprise": 1}, "not a manifest"),
        ({"block_bytes": "many"}, "not a manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_and_nothing_changes(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    fill(tmp_path)
    path = stripe_folder(tmp_path) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = everything_in(stripe_folder(tmp_path))
    with pytest.raises(FormatError, match=said):
        DiskTier.open(disk_options(tmp_path))
    assert everything_in(stripe_folder(tmp_path)) == before


def test_a_manifest_that_is_not_json_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    (stripe_folder(tmp_path) / "manifest.json").write_bytes(b"\xff{")
    with pytest.raises(FormatError, match="not a manifest"):
        DiskTier.open(disk_options(tmp_path))


def test_another_block_size_under_the_same_fingerprint_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(FormatError, match="blocks of 5000 bytes"):
        DiskTier.open(disk_options(tmp_path, block_bytes=9000))


def test_a_larger_capacity_keeps_every_block(tmp_path: Path) -> None:
    fill(tmp_path, num_slots=8)
    assert recovered_slots(tmp_path, num_slots=100) == list(range(8))


def test_a_smaller_capacity_drops_the_blocks_beyond_it_and_gives_space_back(tmp_path: Path) -> None:
    fill(tmp_path)
    assert recovered_slots(tmp_path, num_slots=3) == [0, 1, 2]
    assert (stripe_folder(tmp_path) / "data-0.bin").stat().st_size == 3 * 8192
    assert recovered_slots(tmp_path, num_slots=16) == [0, 1, 2]


def test_striped_directories_are_recovered_together(tmp_path: Path) -> None:
    fill(tmp_path / "a", tmp_path / "b")
    assert recovered_slots(tmp_path / "a", tmp_path / "b") == list(range(8))


def test_directories_in_another_order_or_number_are_refused(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    fill(a, b)
    for given, said in (((b, a), "is stripe 1"), ((a,), "one of 2"), ((a, c), "no manifest"), ((c, b), "no manifest")):
        with pytest.raises(FormatError, match=said):
            DiskTier.open(disk_options(*given))
    assert recovered_slots(a, b) == list(range(8))


def test_a_directory_of_another_set_is_refused(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / name for name in "abcd")
    fill(a, b)
    fill(c, d)
    with pytest.raises(FormatError, match="another set"):
        DiskTier.open(disk_options(a, d))


def test_a_copy_given_as_another_stripe_is_refused_and_a_whole_copy_serves(tmp_path: Path) -> None:
    a, b, copy = tmp_path / "a", tmp_path / "b", tmp_path / "copy"
    fill(a, b)
    shutil.copytree(a, copy)
    with pytest.raises(FormatError, match="is stripe 0 of its set, not 1"):
        DiskTier.open(disk_options(a, copy))
    assert recovered_slots(copy, b) == list(range(8))


def test_a_creation_that_was_cut_off_is_begun_again(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    DiskTier.open(disk_options(a, b)).close()
    (stripe_folder(a) / "manifest.json").unlink()
    path = stripe_folder(b) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_slots": 0}))
    fill(a, b)
    assert recovered_slots(a, b) == list(range(8))


def test_a_directory_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"ssd_cache_dir = .*file.*name a directory"):
        DiskTier.open(disk_options(tmp_path / "file"))


@contextmanager
def mounted(where: Path, options: str) -> Iterator[None]:
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tiercel-test", str(where)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small filesystem")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def test_a_read_only_directory_names_the_setting(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "ro,size=1m"), pytest.raises(ConfigError, match=r"ssd_cache_dir = .*Read-only"):
        DiskTier.open(disk_options(tmp_path / "small"))


def test_too_little_space_is_said_before_anything_is_allocated(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=1m"):
        with pytest.raises(ConfigError, match=r"num_ssd_blocks = 1000: needs \d+ more bytes.*\d+ are free"):
            DiskTier.open(disk_options(tmp_path / "small", num_slots=1000))
        assert not list((tmp_path / "small").rglob("data-*"))
        DiskTier.open(disk_options(tmp_path / "small", num_slots=10)).close()


def test_a_disk_without_room_for_the_journal_reports_no_space_and_recovers(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    with mounted(tmp_path / "small", "size=1m"):
        tier = DiskTier.open(disk_options(tmp_path / "small"))
        rows = random_bytes(random, 4, ODD_BLOCK_BYTES)
        first = random_labels(random, 4)
        assert store(tier, slots_of(0, 1, 2, 3), rows, first) == [OK] * 4
        ballast = tmp_path / "small" / "ballast"
        free = shutil.disk_usage(ballast.parent).free
        ballast.write_bytes(bytes(free))
        outcomes = set()
        for _ in range(200):  # until the journal's last page is full
            outcomes |= set(store(tier, slots_of(4, 5), rows[:2], random_labels(random, 2)))
        assert outcomes == {OK, BlockStatus.NO_SPACE}
        assert tier.stats().journal_refusals["put"] > 0
        assert load(tier, slots_of(0, 3))[0] == [OK, OK]
        assert load(tier, slots_of(4, 5))[0] == [BlockStatus.MISSING] * 2
        tier.free(slots_of(1))
        ballast.unlink()
        assert store(tier, slots_of(6), rows[:1], random_labels(random, 1)) == [OK]
        tier.close()
        tier = DiskTier.open(disk_options(tmp_path / "small"))
        assert sorted(tier.recovered.slots.tolist()) == [0, 2, 3, 6]
        tier.close()


def test_a_data_file_that_may_not_grow_fails_the_open_with_its_path(tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            DiskTier.open(disk_options(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.filename == str(stripe_folder(tmp_path) / "data-0.bin")
    DiskTier.open(disk_options(tmp_path)).close()


@pytest.mark.parametrize("name", ["data-0.bin", "manifest.json"])
def test_a_file_that_cannot_be_opened_is_told_as_the_tiers_with_its_setting(tmp_path: Path, name: str) -> None:
    settings = config(tmp_path, host=4, disk=16)
    Cache.open(MODEL, settings).close()
    (folder,) = tmp_path.glob("tiercel-v*")
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(TierError, match=f"^ssd_cache_dir: .*{name}: .*Is a directory; look at the file and its device"):
        Cache.open(MODEL, settings)
