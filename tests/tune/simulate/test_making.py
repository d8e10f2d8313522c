"""From a configuration, a model and a machine's file to a setup."""

import json
from pathlib import Path
from typing import Any

import pytest

from tiercel import Cache
from tiercel.cache.assembly import assemble
from tiercel.config import CacheConfig, ModelConfig, read_prefill_work
from tiercel.errors import ConfigError
from tiercel.tiers.base import TierName
from tiercel.tune.machine import DirectoryFigures, DiskFigure, Figure, GpuCopyFigure, GpuFigures, Machine
from tiercel.tune.simulate import (
    EngineFacts,
    make_setup,
    prefill_of_cache,
    prefill_of_file,
    prefill_of_model,
    prefill_of_points,
)
from tiercel.tune.simulate.prefill import PrefillSource

HOST, DISK = TierName.HOST, TierName.DISK
GIB = 1 << 30
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
}
MODEL = ModelConfig.from_model(LLAMA, model_id="llama")


def figure(value: float, spread: float = 0.0) -> Figure:
    return Figure(value=value, low=value * (1 - spread / 2), high=value * (1 + spread / 2), repeats=5)


def disk_figure(operation: Any, block_bytes: int, depth: int, rate: float, latency_s: float = 1e-3) -> DiskFigure:
    return DiskFigure(
        operation=operation,
        block_bytes=block_bytes,
        depth=depth,
        bytes_per_s=figure(rate),
        latency_p50_s=latency_s,
        latency_p99_s=2 * latency_s,
    )


def directory(path: str) -> DirectoryFigures:
    return DirectoryFigures(
        path=path,
        filesystem="ext4",
        capacity_bytes=1000 * GIB,
        free_bytes=500 * GIB,
        engine="io_uring",
        direct=True,
        figures=(
            disk_figure("read", 2 << 20, 1, 2e9, latency_s=1.1e-3),
            disk_figure("read", 2 << 20, 32, 6e9),
            disk_figure("read", 4096, 32, 1e9),
            disk_figure("write", 2 << 20, 32, 3e9),
        ),
    )


def copy_figure(direction: Any, piece_bytes: int, ctas: int, rate: float) -> GpuCopyFigure:
    return GpuCopyFigure(direction=direction, piece_bytes=piece_bytes, ctas=ctas, bytes_per_s=figure(rate))


def machine(**changes: Any) -> Machine:
    gpu = GpuFigures(
        name="GPU",
        memory_bytes=80 * GIB,
        h2d_bytes_per_s=figure(55e9),
        d2h_bytes_per_s=figure(54e9),
        both_bytes_per_s=figure(60e9),
        copies=(
            copy_figure("h2d", 32768, 4, 49e9),
            copy_figure("h2d", 32768, 32, 51e9),
            copy_figure("h2d", 32768, 0, 34e9),
            copy_figure("h2d", 4096, 4, 10e9),
        ),
    )
    facts: dict[str, Any] = {
        "measured_at": 0.0,
        "tiercel": "0",
        "cpu": "cpu",
        "num_cores": 8,
        "memory_bytes": 512 * GIB,
        "kernel": "6",
        "copy_bytes_per_s": figure(20e9, spread=0.5),
        "checksum_bytes_per_s": figure(10e9),
        "hash_tokens_per_s": figure(1e8),
        "directories": (directory("/cache"),),
        "gpus": (gpu,),
    }
    return Machine(**(facts | changes))


def config(**changes: Any) -> CacheConfig:
    settings: dict[str, Any] = {
        "num_cpu_blocks": "64GiB",
        "enable_ssd": True,
        "ssd_cache_dir": "/cache",
        "num_ssd_blocks": "256GiB",
    }
    return CacheConfig(**(settings | changes))


ENGINE = EngineFacts(prefill=prefill_of_points([(0, 1000, 0.1), (0, 2000, 0.2)]), decode_token_s=0.02, kv_bytes="8GiB")


def test_capacities_are_those_that_a_cache_would_have() -> None:
    setup = make_setup(config(), MODEL, machine(), ENGINE)
    assert setup.control.block_bytes == 16 * 128 * 1024
    assert setup.control.capacities == {HOST: 64 * GIB // (2 << 20), DISK: 256 * GIB // (2 << 20)}
    assert setup.engine.gpu_blocks == 8 * GIB // (2 << 20)
    assert setup.deadline_s == config().transfer_timeout_s


def test_a_share_is_one_of_the_measured_machines_memory() -> None:
    setup = make_setup(config(num_cpu_blocks="50%"), MODEL, machine(), ENGINE)
    assert setup.control.capacities[HOST] == 256 * GIB // (2 << 20)


def test_the_control_half_is_set_up_as_in_a_real_cache(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "num_cpu_blocks": 8,
        "ssd_cache_dir": str(tmp_path),
        "num_ssd_blocks": 16,
        "eviction_policy": "slru",
        "ssd_admission": "on_evict",
        "evict_ratio": 0.05,
        "transfer_queue_depth_max": 77,
    }
    small = ModelConfig(model_id="m", num_layers=2, num_kv_heads=2, head_size=16, dtype="float16")
    chosen = config(**settings)
    setup = make_setup(chosen, small, machine(directories=(directory(str(tmp_path)),)), ENGINE)
    assembly = assemble(small, chosen)
    try:
        assert setup.control == assembly.control.settings
        assert setup.transfer == assembly.transfer_settings
    finally:
        assembly.close(drained=True)


def test_links_are_read_at_the_size_that_this_cache_moves() -> None:
    # A block of one layer's keys is 32 KiB; a block of all is 2 MiB.
    setup = make_setup(config(transfer_sms_h2d=4), MODEL, machine(), ENGINE)
    assert setup.reads[HOST].bytes_per_s == 49e9
    assert setup.writes[HOST].bytes_per_s == 54e9
    assert (setup.reads[DISK].bytes_per_s, setup.writes[DISK].bytes_per_s) == (6e9, 3e9)
    assert setup.reads[DISK].latency_s == pytest.approx(1.1e-3 - (2 << 20) / 6e9)
    assert any("(d2h) were not measured" in note for note in setup.notes)


def test_the_copy_engine_is_taken_where_the_settings_choose_it() -> None:
    setup = make_setup(config(use_ce_transfer_h2d=True), MODEL, machine(), ENGINE)
    assert setup.reads[HOST].bytes_per_s == 34e9


def test_a_machine_without_gpu_copies_at_its_own_rate_and_says_that_it_varied() -> None:
    setup = make_setup(config(), MODEL, machine(gpus=()), ENGINE)
    assert setup.reads[HOST].bytes_per_s == setup.writes[HOST].bytes_per_s == 20e9
    assert any("has no GPU" in note for note in setup.notes)
    assert any("copy_bytes_per_s varied" in note for note in setup.notes)


def test_directories_add_up_and_one_that_was_not_measured_is_said_to_be_assumed() -> None:
    setup = make_setup(config(ssd_cache_dir=["/cache", "/other"]), MODEL, machine(), ENGINE)
    assert setup.reads[DISK].bytes_per_s == 12e9
    assert any("/other was not measured" in note for note in setup.notes)


def test_what_was_not_given_is_said_to_be_assumed() -> None:
    setup = make_setup(config(), MODEL, machine(), EngineFacts(prefill=ENGINE.prefill))
    assert any("prefix cache is taken to hold nothing" in note for note in setup.notes)
    assert any("generated in no time" in note for note in setup.notes)


def test_a_disk_tier_needs_a_directory_that_was_measured() -> None:
    with pytest.raises(ConfigError, match="run tiercel probe --directory /cache"):
        make_setup(config(), MODEL, machine(directories=()), ENGINE)


def test_a_curve_fitted_to_points_gives_them_back() -> None:
    truth = [
        (cached, new, 0.01 + new * (2e-5 + 3e-10 * (cached + new / 2)))
        for cached in (0, 8000)
        for new in (500, 4000, 32000)
    ]
    found = prefill_of_points(truth)
    for cached, new, seconds in truth:
        assert found.curve.seconds(cached, new) == pytest.approx(seconds, rel=0.02)
    assert "6 measured points" in found.told


def test_a_running_cache_tells_what_it_learnt_of_its_engine(tmp_path: Path) -> None:
    small = ModelConfig(model_id="m", num_layers=2, num_kv_heads=2, head_size=16, dtype="float16")
    socket = tmp_path / "status.sock"
    chosen = CacheConfig(num_cpu_blocks=8, status_socket=str(socket))
    with Cache.open(small, chosen) as cache:
        with pytest.raises(ConfigError, match="has reported no prefill yet"):
            prefill_of_cache(socket)
        for tokens in (100, 1000, 4000):
            cache.observe_prefill(cached_tokens=0, computed_tokens=tokens, seconds=tokens * 1e-4)
        found = prefill_of_cache(socket)
    assert found.curve.seconds(0, 2000) == pytest.approx(0.2, rel=0.05)
    assert "3 timings" in found.told


def test_a_model_of_known_size_takes_two_operations_a_weight() -> None:
    work = read_prefill_work(LLAMA)
    assert work.flops_per_token == 2 * 32 * (2 * 4096 * 128 * 40 + 3 * 4096 * 14336)
    assert work.flops_per_pair == 2 * 32 * 2 * 32 * 128


def test_of_experts_only_those_that_a_token_meets_are_counted() -> None:
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2}
    dense, sparse = read_prefill_work(LLAMA), read_prefill_work(LLAMA | experts)
    added = 2 * 32 * (3 * 4096 * 14336 + 4096 * 8)
    assert sparse.flops_per_token - dense.flops_per_token == added


def test_a_latent_is_unfolded_before_attention() -> None:
    deepseek = {
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "first_k_dense_replace": 3,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "num_attention_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    # 37 billion active parameters are published, 1.8 of them in embeddings and the output head.
    assert read_prefill_work(deepseek).flops_per_token / 2 == pytest.approx(35.6e9, rel=0.02)


def test_arithmetic_divides_by_rate_efficiency_and_ranks_and_says_so() -> None:
    model = ModelConfig.from_model(LLAMA, model_id="llama", tp_size=2)
    found = prefill_of_model(LLAMA, model, gpu_flops=1e15, efficiency=0.4)
    assert found.curve.token_s == pytest.approx(read_prefill_work(LLAMA).flops_per_token / 0.8e15)
    assert "not measured" in found.told
    assert "efficiency of 40%" in found.told
    assert "2 GPUs of 1000 TFLOP/s" in found.told


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({}, "neither points nor token_s"),
        ({"token_s": -1.0}, "token_s = -1.0"),
        ({"points": [[0, 0, 1.0]]}, "point 1"),
        ({"tokens_s": 1.0}, "tokens_s"),
    ],
)
def test_a_prefill_file_that_holds_no_curve_says_why(tmp_path: Path, content: dict[str, Any], named: str) -> None:
    path = tmp_path / "prefill.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=named):
        prefill_of_file(path)


def test_a_prefill_file_may_hold_points_or_coefficients(tmp_path: Path) -> None:
    path = tmp_path / "prefill.json"
    path.write_text(json.dumps({"fixed_s": 0.1, "token_s": 1e-5}))
    found: PrefillSource = prefill_of_file(path)
    assert found.curve.seconds(0, 1000) == pytest.approx(0.11)
    path.write_text(json.dumps({"points": [[0, 1000, 0.1]]}))
    assert prefill_of_file(path).curve.seconds(0, 1000) == pytest.approx(0.1, rel=0.05)
