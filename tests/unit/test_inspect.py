"""Looking at a disk tier's directory from outside, while it is in use and after, and the commands that show it."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tiercel import cli
from tiercel.errors import FormatError
from tiercel.tiers.base import BlockLabels, Slots
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.inspect import inspect_directory, inspect_runs
from tiercel.tiers.memory import ContiguousMemory

BLOCK_BYTES = 4096
FINGERPRINT = bytes(range(32))


def name(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def open_tier(*directories: Path, fingerprint: bytes = FINGERPRINT) -> DiskTier:
    options = DiskOptions(
        directories=directories, fingerprint=fingerprint, num_slots=32, block_bytes=BLOCK_BYTES, direct=False
    )
    return DiskTier.open(options)


def store(tier: DiskTier, parent: str, names: list[str], first_slot: int) -> Slots:
    """Write one block per name and return the slots."""
    slots = np.arange(first_slot, first_slot + len(names), dtype=np.uint32)
    raw = np.zeros((len(names) + 1) * BLOCK_BYTES, dtype=np.uint8)
    first = raw.ctypes.data + -raw.ctypes.data % BLOCK_BYTES
    addresses = (first + np.arange(len(names)) * BLOCK_BYTES).astype(np.uint64)
    rows = np.stack([np.frombuffer(name(text), dtype=np.uint8) for text in names])
    tier.reserve(slots)
    labels = BlockLabels(parent=name(parent), names=rows)
    assert not tier.write(slots, ContiguousMemory(addresses, BLOCK_BYTES), labels).any()
    return slots


@pytest.fixture
def tier_with_a_fork(tmp_path: Path) -> DiskTier:
    """root - a - b - c, and behind b also d - e - f."""
    tier = open_tier(tmp_path)
    store(tier, "root", ["a", "b", "c"], 0)
    store(tier, "b", ["d", "e", "f"], 3)
    return tier


def test_a_directory_in_use_tells_its_blocks_and_its_holder(tmp_path: Path, tier_with_a_fork: DiskTier) -> None:
    (report,) = inspect_directory(tmp_path)
    assert (report.num_blocks, report.num_slots, report.stored_bytes) == (6, 32, 6 * BLOCK_BYTES)
    assert report.fingerprint == FINGERPRINT.hex()
    assert str(os.getpid()) in report.holder
    assert report.problem == ""
    tier_with_a_fork.close()
    assert inspect_directory(tmp_path)[0].holder == ""


def test_looking_changes_nothing(tmp_path: Path, tier_with_a_fork: DiskTier) -> None:
    tier_with_a_fork.close()
    journal = max(tmp_path.glob("*/journal-*.log"))
    with journal.open("ab") as file:
        file.write(b"torn")

    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")}

    before = state()
    (report,) = inspect_directory(tmp_path)
    assert report.torn_bytes == 4
    assert state() == before


def test_runs_end_at_forks_and_a_freed_block_is_gone(tmp_path: Path, tier_with_a_fork: DiskTier) -> None:
    (folder,) = tmp_path.iterdir()
    found = [(run.num_blocks, run.parent_key, run.last_key) for run in inspect_runs(folder)]
    keys = {text: name(text).hex() for text in ("root", "a", "b", "c", "f")}
    assert found[0] == (3, keys["b"], keys["f"])
    assert sorted(found[1:]) == sorted([(2, keys["root"], keys["b"]), (1, keys["b"], keys["c"])])
    tier_with_a_fork.free(np.array([2], dtype=np.uint32))
    tier_with_a_fork.close()
    assert [run.num_blocks for run in inspect_runs(folder)] == [5]
    tier_with_a_fork.close()


def test_a_folder_that_cannot_be_read_is_reported_beside_the_others(
    tmp_path: Path, tier_with_a_fork: DiskTier, capsys: pytest.CaptureFixture[str]
) -> None:
    tier_with_a_fork.close()
    newer = tmp_path / "tiercel-v9-0123456789abcdef"
    newer.mkdir()
    (newer / "manifest.json").write_text('{"format_version": 9}', encoding="utf-8")
    (tmp_path / "tiercel-v1-empty").mkdir()
    problems = [report.problem for report in inspect_directory(tmp_path)]
    assert problems[0] == ""
    assert problems[1] == "has no manifest"
    assert "format version 9" in problems[2]
    with pytest.raises(FormatError, match="format version 9"):
        inspect_runs(newer)
    assert cli.main(["ls", str(tmp_path)]) == 0
    assert "format version 9" in capsys.readouterr().out


def test_stripes_are_listed_with_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tier = open_tier(tmp_path / "one", tmp_path / "two")
    store(tier, "root", ["a", "b", "c"], 0)
    tier.close()
    reports = [*inspect_directory(tmp_path / "one"), *inspect_directory(tmp_path / "two")]
    assert [(report.stripe, report.num_stripes, report.num_blocks) for report in reports] == [(0, 2, 3), (1, 2, 0)]
    assert cli.main(["ls", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert "(stripe 1 of 2)" in capsys.readouterr().out


def test_ls_and_stats_show_a_cold_directory(
    tmp_path: Path, tier_with_a_fork: DiskTier, capsys: pytest.CaptureFixture[str]
) -> None:
    tier_with_a_fork.close()
    (folder,) = tmp_path.iterdir()
    for words in (["ls", str(tmp_path)], ["ls", str(folder), "--keys"], ["stats", str(tmp_path)]):
        assert cli.main(words) == 0
        shown = capsys.readouterr().out
        assert str(folder) in shown
        assert "24.0 KiB" in shown
        assert "nobody" in shown
        assert (name("f").hex() in shown) == ("--keys" in words)
    assert cli.main(["ls", str(tmp_path), "--keys", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["folder"]["num_blocks"], len(entry["runs"])) == (6, 3)
    assert cli.main(["stats", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["num_blocks"] == 6


def test_an_empty_directory_is_nothing_to_list_and_a_mistake_to_ask_for_stats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ls", str(tmp_path)]) == 0
    assert "no cache in" in capsys.readouterr().out
    assert cli.main(["stats", str(tmp_path)]) == 2
    assert cli.main(["ls", str(tmp_path / "missing")]) == 2


def test_a_folder_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_tier(tmp_path).close()
    damaged = tmp_path / "tiercel-v1-damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("garbage")
    assert cli.main(["ls", str(tmp_path), "--keys", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert sorted(bool(entry["folder"]["problem"]) for entry in shown) == [False, True]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_reported_as_such(tmp_path: Path) -> None:
    open_tier(tmp_path).close()
    closed = tmp_path / "tiercel-v1-closed"
    closed.mkdir(mode=0)
    assert [report.problem for report in inspect_directory(tmp_path)] == ["", "cannot be read (Permission denied)"]


def test_a_manifest_that_lacks_its_format_version_is_told_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "tiercel-v9-abab"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (report,) = inspect_directory(tmp_path)
    assert "not a manifest (it names no format_version); remove" in report.problem
