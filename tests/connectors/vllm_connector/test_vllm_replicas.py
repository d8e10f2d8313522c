"""Data-parallel engines, which vLLM starts with the same settings: each opens a cache of its own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.connectors.vllm_connector.mini_vllm import BLOCK
from tests.helpers.small_engine import MODEL
from tiercel import BlockGeometry, CacheConfig, ConfigError
from tiercel.connectors.replicas import settings_of_replica
from tiercel.connectors.vllm.model import ModelBlocks
from tiercel.connectors.vllm.opening import OpenCache
from tiercel.connectors.vllm.settings import read_settings


def _engine(index: int) -> Any:
    """As vLLM describes an engine of a dense model to its connector: of rank and size only the index is left."""
    return SimpleNamespace(
        parallel_config=SimpleNamespace(data_parallel_size=1, data_parallel_rank=0, data_parallel_index=index)
    )


def test_engines_of_a_dense_model_open_side_by_side_with_the_same_settings(tmp_path: Path) -> None:
    extra = {"num_cpu_blocks": 8, "enable_ssd": True, "num_ssd_blocks": 8, "ssd_cache_dir": str(tmp_path / "cache")}
    extra |= {
        "cpu_hugepages": False,
        "status_socket": str(tmp_path / "status"),
        "record_path": str(tmp_path / "record"),
    }
    settings = read_settings(extra, block_size=BLOCK, environ={})
    blocks = ModelBlocks(model=MODEL, geometry=BlockGeometry.from_model(MODEL, tokens_per_block=BLOCK))
    opened = []
    try:
        for index in range(3):
            opened.append(OpenCache(blocks, _engine(index), settings))
        folders = {path.parents[1] for path in (tmp_path / "cache").rglob("manifest.json")}
        assert folders == {tmp_path / "cache", tmp_path / "cache" / "dp1", tmp_path / "cache" / "dp2"}
        assert {path.name for path in tmp_path.iterdir()} >= {"status", "status.dp1", "record", "record.dp2"}
    finally:
        for one in opened:
            one.close()


def test_host_memory_that_outlives_a_process_is_each_engines_own() -> None:
    config = CacheConfig(cpu_arena_dir="/dev/shm/kv")
    assert [settings_of_replica(config, index).cpu_arena_dir for index in (0, 1)] == ["/dev/shm/kv", "/dev/shm/kv/dp1"]


def test_ports_of_metrics_follow_each_other() -> None:
    config = CacheConfig(metrics_port=9100)
    assert [settings_of_replica(config, index).metrics_port for index in range(3)] == [9100, 9101, 9102]
    assert settings_of_replica(CacheConfig(metrics_port=0), 2).metrics_port == 0
    assert settings_of_replica(CacheConfig(), 2).metrics_port is None
    with pytest.raises(ConfigError, match="metrics_port = 65536"):
        settings_of_replica(CacheConfig(metrics_port=65535), 1)
