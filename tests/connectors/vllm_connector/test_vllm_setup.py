"""What the connector makes of vLLM's configuration: pages, keys, settings, and what it refuses by name."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tiercel import BlockGeometry, ConfigError
from tiercel.connectors.vllm.facts import (
    has_worker_processes,
    require_fixed_scales,
    require_parallelism,
    require_prefixes,
    whole_group,
)
from tiercel.connectors.vllm.keys import block_extras, is_cacheable
from tiercel.connectors.vllm.pages import distinct_layers, map_memory, page_layout, page_shape
from tiercel.connectors.vllm.settings import read_settings
from tiercel.connectors.vllm.versions import check_version

BLOCKS, TOKENS, HEADS, DIM = 6, 16, 4, 8
PAGE = 2 * TOKENS * HEADS * DIM


def _tensor(*shape: int) -> torch.Tensor:
    count = int(torch.tensor(shape).prod())
    return torch.arange(count, dtype=torch.int32).view(torch.int32).reshape(shape)


LAYOUTS: dict[str, torch.Tensor] = {
    "block, K and V, tokens, heads": _tensor(BLOCKS, 2, TOKENS, HEADS, DIM),
    "the same, heads before tokens in memory": _tensor(BLOCKS, 2, HEADS, TOKENS, DIM).transpose(2, 3),
    "K and V first": _tensor(2, BLOCKS, TOKENS, HEADS, DIM),
    "block, heads, tokens, K beside V": _tensor(BLOCKS, HEADS, TOKENS, 2 * DIM),
    "kernel blocks of half the size": _tensor(2 * BLOCKS, 2, TOKENS // 2, HEADS, DIM),
    "all layers of a block together": _tensor(BLOCKS, 3, 2, TOKENS, HEADS, DIM)[:, 1],
}


def _geometry(layout: Any, *, layers: int = 1, latent: bool = False) -> BlockGeometry:
    parts, heads, size = page_shape(layout, tokens_per_block=TOKENS, num_heads=HEADS, is_latent=latent)
    return BlockGeometry(
        model_id="m", tokens_per_block=TOKENS, num_layers=layers, kv_parts=parts, num_kv_heads=heads, head_size=size,
        dtype="float32",
    )  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_block_travels_whole_whatever_the_backends_order(name: str) -> None:
    tensor = LAYOUTS[name].clone(memory_format=torch.preserve_format) if "all layers" not in name else LAYOUTS[name]
    layout = page_layout("l", tensor, BLOCKS)
    memory = map_memory(_geometry(layout), [("l", tensor)], BLOCKS, 1)
    assert memory.num_blocks == BLOCKS
    assert memory.holds_whole_blocks
    before = tensor.clone()
    slots = torch.zeros(2, PAGE, dtype=torch.int32)
    addresses = torch.tensor([slots[i].data_ptr() for i in range(2)]).numpy().astype("uint64")
    memory.blocks([1, 4]).gather(addresses)
    memory.blocks([3, 2]).scatter(addresses)
    at = 1 if name == "K and V first" else 0
    ratio = tensor.shape[at] // BLOCKS

    def block(source: torch.Tensor, number: int) -> torch.Tensor:
        return source.narrow(at, number * ratio, ratio)

    assert torch.equal(block(tensor, 3), block(before, 1))
    assert torch.equal(block(tensor, 2), block(before, 4))
    for untouched in (0, 1, 4, 5):
        assert torch.equal(block(tensor, untouched), block(before, untouched))


def test_orders_of_elements_are_told_apart_by_name() -> None:
    names = [page_layout("l", tensor, BLOCKS).name for name, tensor in LAYOUTS.items() if "all layers" not in name]
    assert len(set(names)) == len(names)


def test_a_latent_cache_has_one_part_and_one_head() -> None:
    tensor = _tensor(BLOCKS, TOKENS, 36)
    layout = page_layout("l", tensor, BLOCKS)
    assert page_shape(layout, tokens_per_block=TOKENS, num_heads=1, is_latent=True) == (1, 1, 36)
    assert map_memory(_geometry(layout, latent=True), [("l", tensor)], BLOCKS, 1).holds_whole_blocks


def test_layers_that_share_their_cache_are_kept_once() -> None:
    tensor, other = LAYOUTS["K and V first"], _tensor(2, BLOCKS, TOKENS, HEADS, DIM)
    layers = distinct_layers(["a", "b", "c"], {"a": tensor, "b": tensor, "c": other})
    assert [name for name, _ in layers] == ["a", "c"]


def test_pages_with_holes_and_caches_without_blocks_are_refused() -> None:
    holes = _tensor(BLOCKS, 2, TOKENS, HEADS, 2 * DIM)[..., :DIM]
    with pytest.raises(ConfigError, match="has holes"):
        page_layout("l", holes, BLOCKS)
    with pytest.raises(ConfigError, match="counts the 7 blocks"):
        page_layout("l", LAYOUTS["K and V first"], 7)
    with pytest.raises(ConfigError, match="no tensor"):
        distinct_layers(["a"], {"a": [torch.zeros(1)]})


def _group(kind: str, **facts: object) -> SimpleNamespace:
    spec = type(kind, (), {"block_size": 16, **facts})()
    return SimpleNamespace(layer_names=["a"], kv_cache_spec=spec)


def test_models_that_cannot_be_kept_whole_are_refused_by_name() -> None:
    full = _group("FullAttentionSpec")
    assert whole_group(SimpleNamespace(kv_cache_groups=[full])) is full
    with pytest.raises(ConfigError, match=r"2 kinds: FullAttentionSpec .* MambaSpec .*disable-hybrid"):
        whole_group(SimpleNamespace(kv_cache_groups=[full, _group("MambaSpec")]))
    for kind in ("SlidingWindowSpec", "ChunkedLocalAttentionSpec", "UniformTypeKVCacheSpecs", "SomethingNewSpec"):
        with pytest.raises(ConfigError, match=f"all of kind {kind}.*TiercelTier"):
            whole_group(SimpleNamespace(kv_cache_groups=[_group(kind)]))
    with pytest.raises(ConfigError, match="block_size = 24"):
        whole_group(SimpleNamespace(kv_cache_groups=[_group("FullAttentionSpec", block_size=24)]))


def test_attention_that_looks_ahead_is_refused() -> None:
    with pytest.raises(ConfigError, match="not causal"):
        whole_group(SimpleNamespace(kv_cache_groups=[_group("FullAttentionSpec", non_causal=True)]))


def _engine(device: str = "cuda", *, prefixes: bool = True, chunks: bool = True, **model: Any) -> SimpleNamespace:
    facts = {"model": "m", "is_prefix_caching_supported": True, "runner_type": "generate", "use_mla": False, **model}
    return SimpleNamespace(
        model_config=SimpleNamespace(**facts),
        cache_config=SimpleNamespace(enable_prefix_caching=prefixes),
        scheduler_config=SimpleNamespace(enable_chunked_prefill=chunks),
        device_config=SimpleNamespace(device_type=device),
    )


def test_engines_that_have_to_compute_prompts_whole_are_refused_by_name() -> None:
    require_prefixes(_engine(prefixes=False, chunks=False))
    require_prefixes(_engine("cpu", use_mla=True))
    require_prefixes(_engine(use_mla=True, prefixes=False, chunks=False))
    with pytest.raises(ConfigError, match="MLA, whose prompts vLLM computes whole on this CPU"):
        require_prefixes(_engine("cpu", use_mla=True, prefixes=False, chunks=False))
    pooler = SimpleNamespace(seq_pooling_type="MEAN", tok_pooling_type="ALL")
    pooling = _engine(runner_type="pooling", is_prefix_caching_supported=False, pooler_config=pooler)
    with pytest.raises(ConfigError, match=r"m \(runner pooling, with MEAN/ALL pooling\).*without TiercelConnector"):
        require_prefixes(pooling)


def _spread(**facts: object) -> SimpleNamespace:
    return SimpleNamespace(parallel_config=SimpleNamespace(**facts))


def test_engines_whose_ranks_are_out_of_reach_are_refused_by_name() -> None:
    for name in ("pipeline_parallel_size", "decode_context_parallel_size", "nnodes"):
        with pytest.raises(ConfigError, match=f"{name} = 2"):
            require_parallelism(_spread(**{name: 2}))
    with pytest.raises(ConfigError, match="distributed_executor_backend = ray"):
        require_parallelism(_spread(distributed_executor_backend="ray"))
    with pytest.raises(ConfigError, match="tensor_parallel_size = 2 with distributed_executor_backend = external"):
        require_parallelism(_spread(tensor_parallel_size=2, distributed_executor_backend="external_launcher"))
    ranks = _spread(tensor_parallel_size=2, distributed_executor_backend="mp")
    require_parallelism(ranks)
    assert has_worker_processes(ranks)
    one = SimpleNamespace(tensor_parallel_size=1, distributed_executor_backend="uni")
    require_parallelism(SimpleNamespace(parallel_config=one))


def test_scales_that_change_with_each_run_are_refused() -> None:
    with pytest.raises(ConfigError, match="calculate_kv_scales"):
        require_fixed_scales(SimpleNamespace(cache_config=SimpleNamespace(calculate_kv_scales=True)))


@pytest.mark.parametrize("version", ["0.24.0", "0.32.0+cpu", "0.33.1", "0.33.0.dev3"])
def test_supported_versions_start(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["0.23.9", "0.34.0", "1.0.0", "dev"])
def test_other_versions_are_refused_with_the_range(version: str) -> None:
    with pytest.raises(ConfigError, match=r"0\.24 to 0\.33"):
        check_version(version)
    check_version(version, allow_untested=True)


def test_blocks_are_vllms_blocks() -> None:
    settings = read_settings({"num_cpu_blocks": 10}, block_size=32, environ={})
    assert (settings.cache.tokens_per_block, settings.cache.num_cpu_blocks) == (32, 10)
    with pytest.raises(ConfigError, match="block_size is 32"):
        read_settings({"tokens_per_block": 16}, block_size=32, environ={})
    with pytest.raises(ConfigError, match="environment TIERCEL_TOKENS_PER_BLOCK"):
        read_settings({}, block_size=32, environ={"TIERCEL_TOKENS_PER_BLOCK": "16"})


def test_capacities_that_nobody_named_are_shares_of_the_machine() -> None:
    settings = read_settings({}, block_size=16, environ={"TIERCEL_NUM_SSD_BLOCKS": "7"})
    assert (settings.cache.num_cpu_blocks, settings.cache.num_ssd_blocks) == ("25%", 7)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"num_cpu_block": 3}, "num_cpu_block"),
        ({"load_timeout": 3}, "load_timeout .*did you mean 'load_timeout_s'"),
        ({"ssd_cache_dir": "/nvme"}, "ssd_cache_dir = '/nvme'.*enable_ssd to true"),
        ({"num_ssd_blocks": 9}, "num_ssd_blocks = 9.*enable_ssd to true"),
        ({"load_timeout_s": 0}, "load_timeout_s = 0"),
        ({"load_timeout_s": True}, "load_timeout_s"),
        ({"model_id": 3}, "model_id = 3"),
        ({"allow_untested_vllm": "yes"}, "allow_untested_vllm"),
        ({"config_file": "/nowhere.yaml"}, "nowhere"),
    ],
)
def test_wrong_settings_are_refused_by_name(extra: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(extra, block_size=16, environ={})


def test_a_disk_tier_can_be_turned_off_beside_its_settings() -> None:
    extra = {"ssd_cache_dir": "/nvme", "enable_ssd": False}
    assert not read_settings(extra, block_size=16, environ={}).cache.enable_ssd
    environ = {"TIERCEL_ENABLE_SSD": "true"}
    assert read_settings({"ssd_cache_dir": "/nvme"}, block_size=16, environ=environ).cache.enable_ssd


def _item(name: str, offset: int, length: int) -> SimpleNamespace:
    return SimpleNamespace(identifier=name, mm_position=SimpleNamespace(offset=offset, length=length))


def test_multimodal_items_enter_each_block_that_they_reach_into() -> None:
    extras = block_extras([_item("cat", 10, 10), _item("dog", 40, 8)], 16)
    assert sorted(extras) == [0, 1, 2]
    assert extras != block_extras([_item("cat", 10, 10), _item("cow", 40, 8)], 16)
    moved = block_extras([_item("cat", 9, 10), _item("dog", 40, 8)], 16)
    assert moved[0] != extras[0]
    assert moved[2] == extras[2]
    assert block_extras((), 16) == {}


def test_prompts_without_tokens_are_not_cached() -> None:
    plain = {"prompt_token_ids": [1], "prompt_embeds": None}
    assert is_cacheable(SimpleNamespace(**plain))
    for other in (
        {"prompt_token_ids": None},
        {"prompt_embeds": 1},
        {"prompt_is_token_ids": [True]},
        {"resumable": True},
    ):
        assert not is_cacheable(SimpleNamespace(**{**plain, **other}))
