"""The rows that the benchmark with vLLM makes of its arms' records."""

import math
from pathlib import Path
from typing import Any

import pytest
from _vllm_arms import ARMS, Places
from _vllm_rows import make_rows
from _vllm_scale import H100, SMOKE


def record(**measures: list[float]) -> dict[str, Any]:
    found = {
        name.replace("_", " "): {"unit": "ms", "values": values, "invalid": []} for name, values in measures.items()
    }
    return {"measures": found, "facts": {}, "errors": {}, "finished": True}


def verdicts(records: dict[str, Any], disk: list[float] | None = None) -> dict[str, tuple[float, str]]:
    return {row.name: (row.value, row.verdict) for row in make_rows(records, H100, disk or [])}


def test_a_host_hit_is_held_to_its_bound_and_to_vllms_own() -> None:
    rows = verdicts({"off": record(host_hit_32K=[150.0]), "tiercel": record(host_hit_32K=[140.0, 120.0, 130.0])})
    assert rows["tiercel: host hit 32K"] == (130.0, "NOT reached")
    assert rows["off: host hit 32K"] == (150.0, "")
    value, verdict = rows["host hit 32K: tiercel / off"]
    assert math.isclose(value, 130 / 150)
    assert verdict == "reached"


def test_a_disk_hit_is_held_to_the_disks_own_rate() -> None:
    num_bytes = 32752 * 131072
    rows = verdicts({"tiercel_disk": record(disk_hit_32K=[1.1 * num_bytes / 2e9 * 1e3])}, disk=[2e9])
    assert rows["tiercel_disk: disk hit 32K"][1] == "reached"
    rows = verdicts({"tiercel_disk": record(disk_hit_32K=[1.3 * num_bytes / 2e9 * 1e3])}, disk=[2e9])
    assert rows["tiercel_disk: disk hit 32K"][1] == "NOT reached"


def test_samples_that_failed_a_check_miss_a_bound() -> None:
    wrong = record(host_hit_4K=[30.0])
    wrong["measures"]["host hit 4K"]["invalid"] = ["sample 1, 3 ms: tokens"]
    rows = verdicts({"tiercel": wrong})
    assert rows["tiercel: samples and phases that failed"] == (1, "NOT reached")


def test_equal_outputs_of_different_prompts_are_failed_samples() -> None:
    wrong = record(host_hit_4K=[30.0])
    wrong["facts"]["equal outputs of different prompts 4K"] = 2
    assert verdicts({"tiercel": wrong})["tiercel: samples and phases that failed"] == (2, "NOT reached")


def test_a_phase_that_failed_misses_a_bound() -> None:
    wrong = record(host_hit_4K=[30.0]) | {"errors": {"tail": "Traceback"}}
    assert verdicts({"tiercel": wrong})["tiercel: samples and phases that failed"] == (1, "NOT reached")


def test_an_arm_that_died_early_makes_no_rows() -> None:
    assert make_rows({"tiercel": record(), "off": record(cold_4K=[1.0])}, H100, [])[0].name == "off: cold 4K"


def test_a_smoke_run_has_no_bounds_but_that_of_the_checks() -> None:
    rows = make_rows({"none": record(cold_120=[1.0]), "tiercel": record(cold_120=[2.0])}, SMOKE, [])
    assert [row.name for row in rows if row.bound is not None] == [
        "none: samples and phases that failed",
        "tiercel: samples and phases that failed",
    ]


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_names_a_connector_or_none(name: str) -> None:
    places = Places(
        host_bytes=1, disk_host_bytes=2, disk_bytes=3, disk_directory=Path("/d"), settings={"metrics_port": 1}
    )
    config = ARMS[name].transfer_config(places)
    assert (config is None) == (name == "none")
    assert (ARMS[name].hit is None) == (name in ("none", "bare"))
    if config is not None:
        assert config["kv_role"] == "kv_both"


@pytest.mark.parametrize("scale", [H100, SMOKE])
def test_going_round_the_prompts_of_a_length_empties_the_gpu(scale: Any) -> None:
    capacity = scale.num_gpu_blocks * scale.block_tokens
    for length in scale.lengths:
        assert length.num_prompts * scale.full_tokens(length) > capacity + length.tokens, length.name
        assert length.tokens + scale.itl_outputs <= scale.max_model_tokens
