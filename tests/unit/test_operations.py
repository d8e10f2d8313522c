"""The procedures of docs/operations.md, done as they stand there."""

import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, FormatError, cli

NUM_BLOCKS = 8


def warm_blocks(*directories: Path, num_slots: int = 64) -> int:
    """Open a cache on the directories, say how much of one prompt it holds, check those bytes, and store the prompt."""
    places = [str(directory) for directory in directories]
    with Cache.open(MODEL, config(host=0, disk=num_slots, ssd_cache_dir=places)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(NUM_BLOCKS, seed=1))
        loaded = cache.load(sequence, engine.blocks(0, NUM_BLOCKS)).wait(10)
        engine.check(sequence, loaded.num_blocks_ok)
        assert cache.store(sequence, engine.fill(sequence)).wait(10).num_blocks_ok == min(NUM_BLOCKS, num_slots)
        return loaded.num_blocks_ok


@pytest.fixture
def disks(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "nvme0", tmp_path / "nvme1"
    assert warm_blocks(first, second) == 0
    return first, second


def test_a_cache_that_is_stopped_is_moved_by_copying_its_directories(
    disks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [shutil.copytree(disk, tmp_path / f"new-{disk.name}") for disk in disks]
    assert cli.main(["ls", str(targets[0])]) == 0
    assert str(NUM_BLOCKS) in capsys.readouterr().out
    assert warm_blocks(*targets) == NUM_BLOCKS


def test_a_disk_that_still_reads_is_replaced_by_copying_it(disks: tuple[Path, Path], tmp_path: Path) -> None:
    replacement = shutil.copytree(disks[1], tmp_path / "replacement")
    shutil.rmtree(disks[1])
    assert warm_blocks(disks[0], replacement) == NUM_BLOCKS


def test_a_lost_disk_is_refused_by_name_until_the_others_are_emptied(disks: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    with pytest.raises(FormatError, match=r"empty.*has no manifest"):
        warm_blocks(disks[0], empty)
    for folder in disks[0].glob("tiercel-v1-*"):
        shutil.rmtree(folder)
    assert warm_blocks(disks[0], empty) == 0
    assert warm_blocks(disks[0], empty) == NUM_BLOCKS


def test_a_disk_that_is_not_mounted_is_not_taken_for_an_empty_cache(disks: tuple[Path, Path], tmp_path: Path) -> None:
    disks[1].rename(tmp_path / "unmounted")
    with pytest.raises(FormatError, match=r"nvme1.*has no manifest"):
        warm_blocks(*disks)
    shutil.rmtree(disks[1])
    (tmp_path / "unmounted").rename(disks[1])
    assert warm_blocks(*disks) == NUM_BLOCKS


def test_directories_in_another_order_are_refused(disks: tuple[Path, Path]) -> None:
    with pytest.raises(FormatError, match="same order"):
        warm_blocks(disks[1], disks[0])
    assert warm_blocks(*disks) == NUM_BLOCKS


def test_a_disk_tier_grows_without_loss_and_shrinks_with_it(disks: tuple[Path, Path]) -> None:
    assert warm_blocks(*disks, num_slots=128) == NUM_BLOCKS
    assert warm_blocks(*disks, num_slots=4) == 4


def test_the_page_on_operations_explains_every_kind_of_fallback() -> None:
    root = Path(__file__).parents[2]
    sources = "".join(path.read_text() for path in sorted((root / "src" / "tiercel" / "cache").glob("*.py")))
    kinds = set(re.findall(r'\bkind="(\w+)"', sources)) | {"io_engine", "direct_io", "allocation"}
    assert kinds > {"recorder", "watermark"}
    page = (root / "docs" / "operations.md").read_text()
    assert [kind for kind in sorted(kinds) if f"| `{kind}` |" not in page] == []
