"""What the tier says and refuses when it is opened."""

# pyright: reportMissingImports=false

import random
from pathlib import Path

import pytest
from vllm.v1.core import kv_cache_utils as hashes
from vllm.v1.kv_offload.tiering.base import JobResult

from tests.connectors.vllm_tier.conftest import OpenDriver
from tiercel import ConfigError
from tiercel.connectors.vllm_tier import versions
from tiercel.connectors.vllm_tier.identity import HASH_REMEDY, unstable_hashes


def notes_of(driver: object) -> str:
    return "\n".join(driver.tier._cache.stats().notes)  # type: ignore[attr-defined]


def test_hashes_with_a_random_seed_are_told_with_the_remedy(
    open_driver: OpenDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = open_driver()
    assert HASH_REMEDY not in notes_of(driver)
    monkeypatch.setattr(hashes, "_NONE_HASH_SEED", random.randbytes(32).hex())
    driver.request("first")
    assert HASH_REMEDY in notes_of(driver)


def test_a_fixed_hash_seed_is_fine_whatever_the_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_NONE_HASH_SEED", "12")
    assert unstable_hashes()
    monkeypatch.setenv("PYTHONHASHSEED", "12")
    assert not unstable_hashes()


def test_an_unknown_revision_is_told(open_driver: OpenDriver) -> None:
    assert "model_revision" in notes_of(open_driver())


def test_a_named_revision_is_not_asked_for(open_driver: OpenDriver) -> None:
    assert "model_revision" not in notes_of(open_driver(tier={"model_revision": "main@1"}))


def test_a_vllm_without_what_is_needed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    versions.require()
    monkeypatch.setitem(versions._NEEDED, JobResult.__name__, ("job_id", "colour"))
    with pytest.raises(ConfigError, match=r"TiercelTier needs vLLM 0\.32.*JobResult lacks colour.*TiercelConnector"):
        versions.require()


def test_replicas_of_one_engine_have_a_folder_each(open_driver: OpenDriver, tmp_path: Path) -> None:
    first = open_driver(dp_index=0)
    second = open_driver(dp_index=1)
    folders = [driver.tier._cache._assembly.disk_folder for driver in (first, second)]
    assert folders[0] != folders[1]
    assert "dp1" in str(folders[1])
