"""The facade for named blocks: what it covers, refuses, evicts and brings back."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiercel import CacheConfig, ConfigError, EngineMemory, KeyedCache, Outcome, Sequence

BLOCK_BYTES = 8192
NUM_BLOCKS = 32


class Bench:
    """A keyed cache and page-aligned memory of its owner."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {
            "enable_cpu": False,
            "enable_ssd": True,
            "ssd_cache_dir": str(folder),
            "num_ssd_blocks": 24,
            **settings,
        }
        self.cache = KeyedCache.open({"model_id": "m"}, block_bytes=BLOCK_BYTES, config=CacheConfig(**given))
        mapping = mmap.mmap(-1, NUM_BLOCKS * BLOCK_BYTES)
        self.bytes: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8).reshape(NUM_BLOCKS, BLOCK_BYTES)
        array = self.bytes.reshape(NUM_BLOCKS, 1, BLOCK_BYTES)
        self.memory = EngineMemory.from_arrays(self.cache.geometry, [array], axes="block token dim")

    def named(self, *names: str) -> list[Sequence]:
        return [self.cache.block(name.encode()) for name in names]

    def fill(self, *names: str) -> None:
        for row, name in enumerate(names):
            self.bytes[row] = np.frombuffer(name.encode().ljust(16, b".") * (BLOCK_BYTES // 16), np.uint8)

    def store(self, *names: str, direct: bool = True) -> int:
        """Blocks written."""
        self.fill(*names)
        launched = self.cache.store(self.named(*names), self.memory.blocks(range(len(names))), direct=direct)
        assert launched.ticket.wait().outcome is Outcome.DONE
        return len(launched.positions)

    def load(self, *names: str, direct: bool = True) -> list[str]:
        """Names of the blocks that arrived; each is compared with what was stored."""
        self.bytes[:] = 0
        launched = self.cache.load(self.named(*names), self.memory.blocks(range(len(names))), direct=direct)
        statuses = launched.ticket.wait().statuses
        arrived = [int(p) for p, status in zip(launched.positions, statuses, strict=True) if status == 0]
        got = self.bytes.copy()
        self.fill(*names)
        for row in arrived:
            assert (got[row] == self.bytes[row]).all(), names[row]
        return [names[row] for row in arrived]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "ssd")
    yield made
    made.cache.close()


@pytest.mark.parametrize("direct", [True, False])
def test_a_load_covers_the_stored_blocks_wherever_they_stand(bench: Bench, direct: bool) -> None:
    assert bench.store("a", "b", "c", direct=direct) == 3
    assert bench.load("x", "c", "y", "a", direct=direct) == ["c", "a"]


def test_a_store_covers_what_is_not_stored_yet(bench: Bench) -> None:
    bench.store("a", "c")
    assert bench.store("a", "b", "c", "d") == 2
    assert bench.load("a", "b", "c", "d") == ["a", "b", "c", "d"]


def test_a_name_given_twice_is_stored_once(bench: Bench) -> None:
    assert bench.store("a", "a", "b") == 2
    assert bench.load("a", "b") == ["a", "b"]


def test_a_found_block_is_not_evicted_until_it_is_released(bench: Bench) -> None:
    bench.store("held", "loose")
    found = bench.cache.find(bench.named("held")[0])
    assert found.stored
    for turn in range(3):
        bench.store(*[f"{turn}-{i}" for i in range(20)])
    assert bench.load("held", "loose") == ["held"]
    found.release()
    for turn in range(3, 6):
        bench.store(*[f"{turn}-{i}" for i in range(20)])
    assert bench.load("held") == []


def test_blocks_come_back_after_a_restart_each_by_itself(tmp_path: Path) -> None:
    first = Bench(tmp_path / "ssd")
    names = [f"n{i}" for i in range(20)]
    first.store(*names)
    first.cache.close()
    second = Bench(tmp_path / "ssd")
    second.cache._assembly.control.index.check()
    assert second.load(*names[::-2]) == names[::-2]
    second.store(*[f"other{i}" for i in range(12)])
    assert len(second.load(*names)) == 12
    second.cache._assembly.control.index.check()
    second.cache.close()


def test_a_write_budget_holds_for_named_blocks(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "ssd", ssd_write_budget_per_day="1MiB")  # five blocks an hour
    assert bench.store("a", "b", "c", "d", "e", "f", "g") == 5
    assert bench.cache.stats().activity.counters["throttled"]["budget"] == 1
    bench.cache.close()


def test_admission_takes_a_block_that_a_second_call_names(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "ssd", ssd_admission="on_second_hit")
    assert [bench.store("a", "b"), bench.store("b", "c")] == [0, 1]
    assert bench.load("a", "b", "c") == ["b"]
    bench.cache.close()


def test_a_reset_forgets_every_block(bench: Bench) -> None:
    bench.store("a", "b")
    bench.cache.reset()
    assert bench.load("a", "b") == []


def test_other_identities_share_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "ssd")
    bench.store("a")
    key = bench.named("a")[0].keys().tobytes()
    bench.cache.close()
    config = CacheConfig(enable_cpu=False, enable_ssd=True, ssd_cache_dir=str(tmp_path / "ssd"), num_ssd_blocks=24)
    with KeyedCache.open({"model_id": "m", "dtype": "x"}, block_bytes=BLOCK_BYTES, config=config) as other:
        block = other.block(b"a")
        assert block.keys().tobytes() != key
        assert not other.find(block).stored


def test_a_host_tier_is_refused_with_the_setting_and_the_remedy(tmp_path: Path) -> None:
    config = CacheConfig(enable_ssd=True, ssd_cache_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"enable_cpu = True.*set enable_cpu to false"):
        KeyedCache.open({"model_id": "m"}, block_bytes=BLOCK_BYTES, config=config)


def test_calls_that_do_not_fit_are_refused_before_anything_starts(bench: Bench) -> None:
    blocks = bench.named("a", "b")
    with pytest.raises(ValueError, match="2 blocks are to be stored from 1"):
        bench.cache.store(blocks, bench.memory.blocks([0]))
    with pytest.raises(ValueError, match="twice"):
        bench.cache.load(blocks, bench.memory.blocks([0, 0]))
    with pytest.raises(ValueError, match="empty"):
        bench.cache.block(b"")
