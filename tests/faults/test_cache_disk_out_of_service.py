"""A disk tier that goes out of service under a running cache: stores and loads go on, and cost no more than misses."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, PROMPT_BLOCKS, SmallEngine, config, load_prompt, store_prompt
from tiercel import Cache, TierName
from tiercel.cache import opening
from tiercel.tiers.disk_options import DiskOptions

NOBODY = 65534
Fault = Callable[[Path], AbstractContextManager[None]]


@contextmanager
def renamed(folder: Path) -> Iterator[None]:
    """The folder is gone."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    yield
    aside.rename(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """This process may look into the folder, but change nothing there. What root may do has nothing to do with modes, so root is
    somebody else meanwhile."""
    folder.chmod(0o555)
    is_root = os.getuid() == 0
    if is_root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        assert not os.access(folder, os.W_OK)
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
        folder.chmod(0o755)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that everybody may look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(autouse=True)
def every_call_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier that looks at its directories at every call instead of every few seconds."""
    monkeypatch.setattr(opening, "DiskOptions", partial(DiskOptions, probe_interval_s=0.0))


def out_of_service(cache: Cache) -> str:
    return cache._assembly.tiers[TierName.DISK].stats().out_of_service


@pytest.mark.parametrize(
    ("fault", "says"), [(renamed, "is gone"), (read_only, "cannot be written")], ids=["removed", "read-only"]
)
@pytest.mark.parametrize("host", [0, 32], ids=["disk-alone", "with-host"])
def test_a_disk_out_of_service_costs_misses_and_comes_back(
    directory: Path, fault: Fault, says: str, host: int, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(directory / "cache", host=host, disk=240)
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(3):
            assert store_prompt(cache, engine, seed) == PROMPT_BLOCKS
        (folder,) = (directory / "cache").iterdir()
        with fault(folder):
            for seed in range(10, 14):
                assert store_prompt(cache, engine, seed) == 0
                load_prompt(cache, engine, seed)
            assert says in out_of_service(cache)
            assert [load_prompt(cache, engine, seed) for seed in range(3)] == [PROMPT_BLOCKS] * 3, (
                "reads go on from open files"
            )
            assert load_prompt(cache, engine, 10) == 0, "what the disk did not take is a miss"
        assert load_prompt(cache, engine, 11) == 0
        assert store_prompt(cache, engine, 10) == PROMPT_BLOCKS
        assert out_of_service(cache) == ""
        assert load_prompt(cache, engine, 10) == PROMPT_BLOCKS
        cache._assembly.control.index.check()
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        assert [load_prompt(cache, engine, seed) for seed in (0, 1, 2, 10, 11)] == [PROMPT_BLOCKS] * 4 + [0]
    told = [getattr(record, "event", "") for record in caplog.records]
    assert (told.count("disk_out_of_service"), told.count("disk_in_service")) == (1, 1)
