"""What a model's KV cache consists of, read from the facts of published config.json files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiercel.config import FULL_ATTENTION, LayerGroup, ModelConfig
from tiercel.errors import ConfigError


def model(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {"model_id": "m", "num_layers": 4, "num_kv_heads": 8, "head_size": 64, "dtype": "float16"}
    return ModelConfig(**{**values, **changes})


def read(facts: dict[str, Any], **options: Any) -> ModelConfig:
    return ModelConfig.from_model(facts, model_id="m", **options)


def kinds(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {group.name: group.layers for group in config.layer_groups}


def test_the_size_of_a_token_is_layers_by_heads_by_size_by_two_by_width() -> None:
    assert model(num_layers=64, num_kv_heads=8, head_size=256, dtype="bfloat16").token_size_in_bytes == 524_288


def test_mla_keeps_one_latent_per_layer_and_token() -> None:
    config = model(num_layers=61, num_kv_heads=1, head_size=576, dtype="bfloat16", use_mla=True)
    assert config.token_size_in_bytes == 61 * 576 * 2
    with pytest.raises(ConfigError, match=r"num_kv_heads = 8.*use_mla"):
        model(use_mla=True)


class FakeTorchDtype:
    def __str__(self) -> str:
        return "torch.float8_e4m3fn"


@pytest.mark.parametrize(
    ("given", "name", "width"),
    [
        ("bfloat16", "bfloat16", 2),
        ("torch.float16", "float16", 2),
        (FakeTorchDtype(), "float8_e4m3fn", 1),
        (np.float32, "float32", 4),
        (np.dtype("uint8"), "uint8", 1),
    ],
)
def test_an_element_type_is_taken_by_its_name(given: object, name: str, width: int) -> None:
    config = model(dtype=given)
    assert config.dtype == name
    assert config.token_size_in_bytes == 4 * 8 * 64 * 2 * width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "bfloat"}, r"dtype = 'bfloat'.*did you mean 'bfloat16'"),
        ({"num_layers": 0}, "num_layers = 0"),
        ({"num_kv_heads": True}, "num_kv_heads = True"),
        ({"head_size": 64.0}, "head_size = 64.0"),
        ({"use_mla": 1}, "use_mla = 1"),
        ({"model_id": ""}, "model_id = ''"),
        ({"weights_epoch": 3}, "weights_epoch = 3"),
        ({"tp_size": 3}, "tp_size = 3.*num_kv_heads = 8"),
        ({"layer_groups": (LayerGroup(name="full_attention", layers=(0, 1)),)}, "layer_groups.*4 layers"),
    ],
)
def test_a_model_that_cannot_be_is_refused_by_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model(**change)


def test_more_ranks_than_heads_replicate_them() -> None:
    assert model(num_kv_heads=2, tp_size=8).token_size_in_bytes == model(num_kv_heads=2).token_size_in_bytes


LLAMA3 = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}
QWEN3 = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 2560,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 36,
    "dtype": "bfloat16",
}
QWEN2 = {
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_size": 3584,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "torch_dtype": "bfloat16",
}
LLAMA2 = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_size": 4096,
    "torch_dtype": "float16",
}
GPT2 = {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "torch_dtype": "float32"}
FALCON_7B = {
    "model_type": "falcon",
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "num_kv_heads": 71,
    "hidden_size": 4544,
    "multi_query": True,
    "new_decoder_architecture": False,
    "torch_dtype": "bfloat16",
}
FALCON_40B = {
    "model_type": "falcon",
    "num_hidden_layers": 60,
    "num_attention_heads": 128,
    "num_kv_heads": 8,
    "hidden_size": 8192,
    "multi_query": True,
    "new_decoder_architecture": True,
    "torch_dtype": "bfloat16",
}
STARCODER = {"model_type": "gpt_bigcode", "n_layer": 40, "n_head": 48, "n_embd": 6144, "torch_dtype": "float32"}
CHATGLM3 = {
    "model_type": "chatglm",
    "num_layers": 28,
    "num_attention_heads": 32,
    "hidden_size": 4096,
    "kv_channels": 128,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "torch_dtype": "float16",
}
MPT = {
    "model_type": "mpt",
    "n_layers": 32,
    "n_heads": 32,
    "d_model": 4096,
    "attn_config": {},
    "torch_dtype": "bfloat16",
}
DBRX = {
    "model_type": "dbrx",
    "n_layers": 40,
    "n_heads": 48,
    "d_model": 6144,
    "attn_config": {"kv_n_heads": 8},
    "torch_dtype": "bfloat16",
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "torch_dtype": "bfloat16",
}
MIXTRAL = {**LLAMA3, "model_type": "mixtral", "sliding_window": None}
PHI3_LONG = {**LLAMA2, "sliding_window": 262144, "max_position_embeddings": 131072}
LLAVA = {"model_type": "llava", "text_config": LLAMA2, "vision_config": {"num_hidden_layers": 24, "hidden_size": 1024}}
QWEN_OMNI = {"thinker_config": {"text_config": QWEN2}, "talker_config": {"num_hidden_layers": 24}}


@pytest.mark.parametrize(
    ("facts", "layers", "kv_heads", "head_size", "dtype"),
    [
        pytest.param(LLAMA3, 32, 8, 128, "bfloat16", id="llama-3-8b-gqa"),
        pytest.param(QWEN3, 36, 8, 128, "bfloat16", id="qwen3-4b-explicit-head-size"),
        pytest.param(QWEN2, 28, 4, 128, "bfloat16", id="qwen2-7b-window-off"),
        pytest.param(LLAMA2, 32, 32, 128, "float16", id="llama-2-7b-mha"),
        pytest.param(MIXTRAL, 32, 8, 128, "bfloat16", id="mixtral"),
        pytest.param(PHI3_LONG, 32, 32, 128, "float16", id="phi-3-window-beyond-context"),
        pytest.param(GPT2, 12, 12, 64, "float32", id="gpt2"),
        pytest.param(FALCON_7B, 32, 1, 64, "bfloat16", id="falcon-7b-mqa"),
        pytest.param(FALCON_40B, 60, 8, 64, "bfloat16", id="falcon-40b-gqa"),
        pytest.param(STARCODER, 40, 1, 128, "float32", id="starcoder-mqa-by-class"),
        pytest.param(CHATGLM3, 28, 2, 128, "float16", id="chatglm3"),
        pytest.param(MPT, 32, 32, 128, "bfloat16", id="mpt"),
        pytest.param(DBRX, 40, 8, 128, "bfloat16", id="dbrx"),
        pytest.param(LLAVA, 32, 32, 128, "float16", id="llava-nested"),
        pytest.param(QWEN_OMNI, 28, 4, 128, "bfloat16", id="qwen-omni-nested-twice"),
    ],
)
def test_the_facts_of_full_attention_models(
    facts: dict[str, Any], layers: int, kv_heads: int, head_size: int, dtype: str
) -> None:
    config = read(facts)
    assert (config.num_layers, config.num_kv_heads, config.head_size, config.dtype) == (
        layers,
        kv_heads,
        head_size,
        dtype,
    )
    assert not config.use_mla
    assert kinds(config) == {FULL_ATTENTION: tuple(range(layers))}
    config.require_full_attention()


def test_deepseek_keeps_a_latent() -> None:
    config = read(DEEPSEEK_V3, tp_size=8)
    assert (config.use_mla, config.num_kv_heads, config.head_size) == (True, 1, 576)
    assert config.token_size_in_bytes == 61 * 576 * 2
    assert not config.is_hybrid


GEMMA3_4B = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 34, "hidden_size": 2560, "sliding_window": 1024},
}
GEMMA2 = {**LLAMA3, "model_type": "gemma2", "num_hidden_layers": 4, "head_dim": 256, "sliding_window": 4096}
QWEN3_NEXT = {**QWEN3, "model_type": "qwen3_next", "num_hidden_layers": 8, "full_attention_interval": 4}
GPT_OSS = {
    **QWEN3,
    "num_hidden_layers": 4,
    "use_sliding_window": None,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
MISTRAL_1 = {**LLAMA3, "num_hidden_layers": 2, "sliding_window": 4096, "max_position_embeddings": 32768}
YARN_WINDOW = {**MISTRAL_1, "max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4.0}}
JAMBA = {**LLAMA3, "num_hidden_layers": 4, "attn_layer_period": 4, "attn_layer_offset": 2, "mamba_d_state": 16}
NEMOTRON_H = {**LLAMA3, "num_hidden_layers": 4, "hybrid_override_pattern": "M-*E"}
LLAMA4 = {"text_config": {**LLAMA3, "num_hidden_layers": 4, "attention_chunk_size": 8192}}
RECURRENT = {**LLAMA3, "model_type": "recurrent_gemma", "num_hidden_layers": 3}
FALCON_H1 = {**LLAMA3, "num_hidden_layers": 2, "mamba_d_ssm": 1024}
DSA = {**DEEPSEEK_V3, "num_hidden_layers": 2, "index_head_dim": 128}
GEMMA3N = {**GPT_OSS, "num_kv_shared_layers": 1}
MLLAMA = {"text_config": {**LLAMA3, "num_hidden_layers": 3, "cross_attention_layers": [1]}}
QWEN2_WINDOW = {
    **QWEN2,
    "num_hidden_layers": 3,
    "use_sliding_window": True,
    "sliding_window": 4096,
    "max_window_layers": 2,
}
EXAONE4 = {
    **QWEN3,
    "num_hidden_layers": 4,
    "use_sliding_window": None,
    "sliding_window": 4096,
    "sliding_window_pattern": "LLLG",
}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(GEMMA2, {"sliding_attention": (0, 2), FULL_ATTENTION: (1, 3)}, id="gemma2"),
        pytest.param(QWEN3_NEXT, {"linear_attention": (0, 1, 2, 4, 5, 6), FULL_ATTENTION: (3, 7)}, id="qwen3-next"),
        pytest.param(GPT_OSS, {"sliding_attention": (0, 2), FULL_ATTENTION: (1, 3)}, id="gpt-oss"),
        pytest.param(MISTRAL_1, {"sliding_attention": (0, 1)}, id="mistral-v0.1"),
        pytest.param(YARN_WINDOW, {"sliding_attention": (0, 1)}, id="window-shorter-than-scaled-context"),
        pytest.param(JAMBA, {"mamba": (0, 1, 3), FULL_ATTENTION: (2,)}, id="jamba"),
        pytest.param(NEMOTRON_H, {"mamba": (0,), "no_state": (1, 3), FULL_ATTENTION: (2,)}, id="nemotron-h"),
        pytest.param(LLAMA4, {"chunked_attention": (0, 1, 2), FULL_ATTENTION: (3,)}, id="llama4"),
        pytest.param(RECURRENT, {"recurrent": (0, 1), "sliding_attention": (2,)}, id="recurrent-gemma"),
        pytest.param(FALCON_H1, {"linear_attention": (0, 1)}, id="falcon-h1-by-hint"),
        pytest.param(DSA, {"indexed_attention": (0, 1)}, id="deepseek-v3.2"),
        pytest.param(
            GEMMA3N, {"sliding_attention": (0, 2), FULL_ATTENTION: (1,), "shared_attention": (3,)}, id="gemma3n"
        ),
        pytest.param(MLLAMA, {FULL_ATTENTION: (0, 2), "cross_attention": (1,)}, id="mllama"),
        pytest.param(QWEN2_WINDOW, {FULL_ATTENTION: (0, 1), "sliding_attention": (2,)}, id="qwen2-window-on"),
        pytest.param(EXAONE4, {"sliding_attention": (0, 1, 2), FULL_ATTENTION: (3,)}, id="exaone4"),
    ],
)
def test_hybrid_models_are_recorded_as_groups_and_refused_by_name(
    facts: dict[str, Any], expected: dict[str, tuple[int, ...]]
) -> None:
    config = read(facts)
    assert kinds(config) == expected
    assert config.is_hybrid
    with pytest.raises(ConfigError, match=next(kind for kind in expected if kind != FULL_ATTENTION)):
        config.require_full_attention()


def test_gemma3_takes_from_its_class_what_its_file_leaves_out() -> None:
    config = read(GEMMA3_4B)
    assert (config.num_layers, config.num_kv_heads, config.head_size, config.dtype) == (34, 4, 256, "bfloat16")
    groups = {group.name: group for group in config.layer_groups}
    assert groups["sliding_attention"].window == 1024
    assert groups[FULL_ATTENTION].layers == (5, 11, 17, 23, 29)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers: missing.*n_layer.*AutoConfig"),
        ({"num_attention_heads": None, "num_key_value_heads": None}, "num_attention_heads: missing"),
        ({"hidden_size": None}, "hidden_size: missing"),
        ({"hidden_size": 4100}, "head_dim.*4100 is no multiple of 32"),
        ({"torch_dtype": None}, "dtype: .*neither dtype nor torch_dtype"),
        ({"torch_dtype": "nvfp4"}, "torch_dtype = 'nvfp4'"),
        ({"num_key_value_heads": [8, 4]}, "num_key_value_heads.*differs by layer"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers = '32'"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000: must be .* 1 to 1048576"),
        ({"layer_types": ["full_attention"]}, "layer_types.*1 entries for 32 layers"),
        ({"v_head_dim": 64}, "v_head_dim = 64"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"block_configs": [{}]}, "block_configs"),
    ],
)
def test_a_missing_or_impossible_fact_names_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read({**LLAMA3, **change})


BERT = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size": 768,
    "torch_dtype": "float32",
}
MAMBA2 = {
    "model_type": "mamba2",
    "num_hidden_layers": 64,
    "num_heads": 80,
    "head_dim": 64,
    "hidden_size": 2560,
    "state_size": 128,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (BERT, "model_type = 'bert': an encoder .*without Tiercel"),
        ({**BERT, "model_type": "new_bert"}, "architectures = .'BertForMaskedLM'.: an encoder"),
        (MAMBA2, "model_type = 'mamba2': a state-space model .*without Tiercel"),
        ({**MAMBA2, "model_type": "rwkv"}, "model_type = 'rwkv'"),
    ],
)
def test_a_model_without_a_kv_cache_is_refused_by_its_class(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(facts)


def test_an_encoders_class_that_was_trained_to_generate_is_a_decoder() -> None:
    assert read({**BERT, "is_decoder": True, "architectures": ["BertLMHeadModel"]}).num_layers == 12
    assert read({**LLAMA3, "architectures": ["LlamaForCausalLM"]}).num_layers == 32


def test_the_engines_own_kv_type_wins_over_the_weights() -> None:
    assert read(LLAMA3, dtype="float8_e5m2").dtype == "float8_e5m2"


def test_a_folder_or_its_file_is_read_and_its_name_changes_with_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "llama-3"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA3))
    (folder / "model.safetensors").write_bytes(b"weights")
    first = ModelConfig.from_model(folder)
    assert first.model_id.startswith("llama-3@")
    assert ModelConfig.from_model(str(folder / "config.json")) == first
    assert ModelConfig.from_model(folder, model_id="shared", weights_epoch="2").model_id == "shared"
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert ModelConfig.from_model(folder).model_id != first.model_id


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), ("{", "not JSON"), ("[]", "one JSON object"), ("\xff", "not JSON")]
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_model(tmp_path if content is not None else tmp_path / "config.json")


def test_a_bare_mapping_needs_a_name_for_its_weights() -> None:
    with pytest.raises(ConfigError, match="pass model_id="):
        ModelConfig.from_model(LLAMA3)
    assert ModelConfig.from_model({**LLAMA3, "_name_or_path": "org/llama"}).model_id == "org/llama"
