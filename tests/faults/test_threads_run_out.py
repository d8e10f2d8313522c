"""A machine without a thread left: a cache that cannot start leaves nothing behind, whichever thread it was."""

import gc
import threading
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, PROMPT_BLOCKS, SmallEngine, config, load_prompt, store_prompt
from tiercel import Cache, CacheConfig

_THREADS_MAX = 100


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tiercel-")]


def arenas() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:tiercel")


@pytest.fixture
def threads_left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many more threads may start; [number]."""
    left = [_THREADS_MAX]
    start = threading.Thread.start

    def start_if_any(thread: threading.Thread) -> None:
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_any)
    return left


def opened_with(num_threads: int, settings: CacheConfig, threads_left: list[int]) -> str | None:
    """Open a cache with so many threads left, and close it. Returns why it could not be opened."""
    threads_left[0] = num_threads
    try:
        cache = Cache.open(MODEL, settings, shares_memory=True)
    except RuntimeError as error:
        return str(error)
    finally:
        threads_left[0] = _THREADS_MAX
    cache.close()
    return None


def test_whichever_thread_cannot_start_nothing_stays_locked_mapped_or_running(
    tmp_path: Path, threads_left: list[int]
) -> None:
    settings = config(tmp_path / "cache", host=16, disk=64)
    before = arenas()
    number = 0
    while (error := opened_with(number, settings, threads_left)) is not None:
        assert "can't start new thread" in error
        gc.collect()
        assert ours() == [], f"thread {number} could not start"
        assert arenas() == before, f"thread {number} could not start"
        assert not list(tmp_path.rglob("*.sock")), f"thread {number} could not start"
        number += 1
    with Cache.open(MODEL, settings, shares_memory=True) as cache:
        engine = SmallEngine(cache.geometry)
        store_prompt(cache, engine, 1)
        assert load_prompt(cache, engine, 1) == PROMPT_BLOCKS
        assert arenas() > before, "the test looks for another name than the arena's"
    assert number >= 8, f"only {number} threads were needed to open a cache"


def test_a_cache_closes_without_a_thread_left(tmp_path: Path, threads_left: list[int]) -> None:
    settings = config(tmp_path / "cache", host=16, disk=64)
    cache = Cache.open(MODEL, settings)
    store_prompt(cache, SmallEngine(cache.geometry), 1)
    threads_left[0] = 0
    cache.close()
    threads_left[0] = _THREADS_MAX
    with Cache.open(MODEL, settings) as cache:
        assert load_prompt(cache, SmallEngine(cache.geometry), 1) == PROMPT_BLOCKS
