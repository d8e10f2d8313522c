"""What tells two engines' KV apart, and what does not: the identity that enters every key."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tiercel.connectors.vllm.identity import engine_identity


def _config(model: str = "org/model", *, hf: dict[str, Any] | None = None, **changed: Any) -> SimpleNamespace:
    """As much of vLLM's configuration as the identity reads."""
    facts = {"model_type": "llama", **(hf or {})}
    values: dict[str, Any] = {
        "model": model, "hf_config": SimpleNamespace(to_dict=lambda: facts), "dtype": "bfloat16", "quantization": None,
        "max_model_len": 4096, "revision": None, "code_revision": None, "seed": 0, "model_weights": "", **changed,
    }  # fmt: skip
    return SimpleNamespace(
        model_config=SimpleNamespace(**values),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
        cache_config=SimpleNamespace(cache_dtype="auto"),
        load_config=SimpleNamespace(load_format="auto", model_loader_extra_config={}),
        speculative_config=None,
        compilation_config=SimpleNamespace(static_forward_context={}),
        device_config=SimpleNamespace(device_type="cuda"),
    )


def _identity(config: SimpleNamespace) -> str:
    return engine_identity(config, version="0.33.0", layer_name="l", layout="1 x 16:1", named=None)


LONG = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    "hf",
    [
        {"rope_scaling": LONG},
        {"rope_parameters": LONG},
        {"text_config": {"rope_parameters": LONG}},
        {"rope_scaling": {"type": "su"}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    ],
)
def test_positions_that_follow_the_longest_sequence_tell_engines_apart(hf: dict[str, Any]) -> None:
    short, long = (_identity(_config(hf=hf, max_model_len=length)) for length in (4096, 131072))
    assert short != long


@pytest.mark.parametrize("hf", [{}, {"rope_scaling": {"rope_type": "llama3"}}, {"quantization": {"scheme": "dynamic"}}])
def test_the_longest_sequence_alone_changes_no_key(hf: dict[str, Any]) -> None:
    assert _identity(_config(hf=hf)) == _identity(_config(hf=hf, max_model_len=8192))


def test_weights_in_a_single_file_are_told_apart_when_it_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"one")
    before = _identity(_config(str(file)))
    assert before == _identity(_config(str(file)))
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert _identity(_config(str(file))) != before


def test_weights_streamed_from_elsewhere_are_told_apart_by_their_address(tmp_path: Path) -> None:
    one, other = (_identity(_config(str(tmp_path), model_weights=f"s3://bucket/{name}")) for name in ("a", "b"))
    assert one != other
