"""Whatever stands in a file or in the environment: settings come out of it, or a ConfigError; nothing else, ever."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers.config_samples import SEED_EXAMPLES
from tiercel.config import SETTINGS, ModelConfig, explain, read_config
from tiercel.config.dialects.reader import DIALECTS
from tiercel.config.later import LATER_KEYS
from tiercel.config.schema import settings_schema
from tiercel.errors import ConfigError

VALIDATE = fastjsonschema.compile(settings_schema())
FOREIGN = [known.name for dialect in DIALECTS for known in dialect.keys if known.name]
ROOTS = [root for dialect in DIALECTS for root in sorted(dialect.roots)]
VARIABLES = [name.replace("*", "X") for dialect in DIALECTS for known in dialect.keys for name in known.variables]

SIZES = st.builds(
    lambda number, unit: f"{number}{unit}", st.integers(0, 10**6), st.sampled_from(["GiB", "MB", "%", "G", ""])
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 2000),
    st.sampled_from(
        [10**400, -(2**63), 2**31, "9" * 5000, "~nobody-here/x", "a\0b", "\ud800", "lru", "on_evict", "1:30"]
    ),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=20),
    SIZES,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.one_of(
    st.sampled_from(
        [*SETTINGS, *LATER_KEYS, "cache_config", "model_config", *(name.split(".")[0] for name in FOREIGN), *ROOTS]
    ),
    st.text(max_size=8),
)
LEVEL = st.dictionaries(KEYS, VALUES, max_size=4)
MODELS = st.dictionaries(
    st.sampled_from(
        ["model_id", "num_layers", "num_kv_heads", "head_size", "dtype", "use_mla", "layer_groups", "tp_size"]
    ),
    VALUES,
    max_size=8,
)
CONTENTS = st.one_of(LEVEL, st.fixed_dictionaries({"cache_config": LEVEL}, optional={"model_config": MODELS | VALUES}))

FACTS = """
num_hidden_layers num_attention_heads num_key_value_heads hidden_size head_dim torch_dtype model_type architectures
layer_types block_types sliding_window sliding_window_pattern rope_scaling kv_lora_rank qk_rope_head_dim text_config
attn_config max_position_embeddings cross_attention_layers attn_layer_period attention_chunk_size no_rope_layers
no_rope_layer_interval num_kv_shared_layers hybrid_override_pattern attn_type_list max_window_layers use_sliding_window
"""

FUZZ = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def nested(path: str, value: object) -> dict[str, object]:
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def read_or_refuse(file: Path | None, environ: Mapping[str, str] | None = None, **overrides: Any) -> bool:
    """Return whether settings were taken; whatever was taken can be explained and said."""
    try:
        loaded = read_config(file, environ=environ or {}, **overrides)
    except ConfigError:
        return False
    assert set(loaded.sources) == set(SETTINGS)
    assert all(str(note) for note in loaded.notes)
    explain(loaded)
    return True


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@FUZZ
@given(content=CONTENTS)
def test_values_of_any_kind_are_taken_or_refused(tmp_path: Path, suffix: str, content: dict[str, object]) -> None:
    path = tmp_path / f"c{suffix}"
    path.write_text(json.dumps(content), encoding="utf-8")
    taken = read_or_refuse(path)
    if taken and suffix == ".json":
        VALIDATE(json.loads(path.read_text(encoding="utf-8")))  # the schema refuses nothing that the reader takes


@FUZZ
@given(path=st.sampled_from(FOREIGN), value=VALUES)
def test_foreign_keys_of_any_value_are_taken_or_refused(tmp_path: Path, path: str, value: object) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps(nested(path, value)), encoding="utf-8")
    read_or_refuse(file)


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".toml"])
@FUZZ
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_bytes_of_any_kind_are_taken_or_refused(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"c{suffix}"
    path.write_bytes(data)
    read_or_refuse(path)


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".toml"])
@FUZZ
@given(data=st.data())
def test_a_real_file_with_a_few_characters_changed_is_taken_or_refused(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    text = data.draw(st.sampled_from(SEED_EXAMPLES))
    if suffix == ".toml":
        text = (
            "num_cpu_blocks = 5\n[cache.host]\ncache_size_gb = 4.0\n[offload.g2_to_g3]\npolicies = ['presence_lfu']\n"
        )
    for _ in range(data.draw(st.integers(1, 4))):
        at, cut = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 3))
        put = data.draw(st.text(alphabet=":{}[]!&*|>'\"#-.%0123456789aefxn\n\t =", max_size=4))
        text = text[:at] + put + text[at + cut :]
    path = tmp_path / f"c{suffix}"
    path.write_text(text, encoding="utf-8")
    read_or_refuse(path)


TAGS = st.sampled_from(
    ["int", "float", "bool", "null", "timestamp", "binary", "omap", "pairs", "set", "merge", "value"]
)


@FUZZ
@given(tag=TAGS, text=st.text(alphabet="0123456789abcefxon-:._ TZ", max_size=12), key=st.sampled_from([*SETTINGS]))
def test_a_yaml_tag_that_its_value_does_not_fit_is_refused(tmp_path: Path, tag: str, text: str, key: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"{key}: !!{tag} {text!r}\n", encoding="utf-8")
    read_or_refuse(path)


@FUZZ
@given(
    environ=st.dictionaries(
        st.sampled_from([*VARIABLES, *(f"TIERCEL_{key.upper()}" for key in (*SETTINGS, *LATER_KEYS)), "FLEXKV_X"]),
        st.one_of(st.text(max_size=20), SIZES, SCALARS.map(str)).map(lambda text: text.replace("\0", "")),
        max_size=4,
    )
)
def test_variables_of_any_text_are_taken_or_refused(environ: dict[str, str]) -> None:
    read_or_refuse(None, environ)


@FUZZ
@given(overrides=st.dictionaries(st.sampled_from([*SETTINGS, *LATER_KEYS, "num_cpu_block"]), VALUES, max_size=3))
def test_keywords_of_any_value_are_taken_or_refused(overrides: dict[str, Any]) -> None:
    read_or_refuse(None, {}, **overrides)


@FUZZ
@example(facts={"cross_attention_layers": [[]]})
@example(facts={"sliding_window": 4, "max_position_embeddings": 10**400, "rope_scaling": {"factor": 2.0}})
@given(
    facts=st.dictionaries(
        st.sampled_from(
            [
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "hidden_size",
                "head_dim",
                "torch_dtype",
                "model_type",
                "architectures",
                "layer_types",
                "block_types",
                "sliding_window",
                "sliding_window_pattern",
                "rope_scaling",
                "kv_lora_rank",
                "qk_rope_head_dim",
                "text_config",
                "attn_config",
                "max_position_embeddings",
                "cross_attention_layers",
                "attn_layer_period",
                "attention_chunk_size",
                "no_rope_layers",
                "no_rope_layer_interval",
                "num_kv_shared_layers",
            ]
        ),
        VALUES | st.integers(1, 64) | st.sampled_from(["bfloat16", "llama", "gemma3_text"]),
        max_size=8,
    )
)
def test_a_models_facts_of_any_value_are_taken_or_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    complete: dict[str, object] = {
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "hidden_size": 64,
        "torch_dtype": "float16",
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**complete, **facts}), encoding="utf-8")
    try:
        model = ModelConfig.from_model(os.fspath(path), model_id="m")
    except ConfigError:
        return
    assert model.token_size_in_bytes > 0
