"""What names a request's blocks besides its tokens: adapters and multimodal items, and when neither can be named."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.connectors.vllm_connector.mini_vllm import BLOCK, request
from tests.helpers.small_engine import MODEL, config
from tiercel import Cache
from tiercel.connectors.vllm.facts import names_items
from tiercel.connectors.vllm.failures import Failures
from tiercel.connectors.vllm.keys import Adapters, is_cacheable
from tiercel.connectors.vllm.requests import Requests


def _lora(path: Path | str, number: int = 1, *, in_place: bool = False) -> SimpleNamespace:
    return SimpleNamespace(lora_name="a", lora_int_id=number, lora_path=str(path), load_inplace=in_place)


def test_an_adapter_whose_files_change_has_another_name_after_a_restart(tmp_path: Path) -> None:
    weights = tmp_path / "adapter.safetensors"
    weights.write_bytes(b"one")
    name = Adapters().name(_lora(tmp_path))
    assert name == Adapters().name(_lora(tmp_path)) is not None
    weights.write_bytes(b"other")
    assert Adapters().name(_lora(tmp_path)) not in (name, None)


def test_an_adapter_whose_files_change_while_vllm_runs_has_no_name(tmp_path: Path) -> None:
    """vLLM's server reloads it in place without telling its requests, and reloads what it has evicted."""
    weights = tmp_path / "adapter.safetensors"
    weights.write_bytes(b"one")
    adapters = Adapters()
    before = adapters.name(_lora(tmp_path))
    weights.write_bytes(b"other")
    assert adapters.name(_lora(tmp_path)) is None
    assert adapters.name(_lora(tmp_path, in_place=True)) not in (before, None)
    assert adapters.name(_lora(tmp_path)) is not None, "vLLM was seen to read it anew"


def test_an_adapter_that_is_no_folder_is_known_in_one_process_only(tmp_path: Path) -> None:
    adapters = Adapters()
    assert adapters.name(_lora("org/adapter")) == adapters.name(_lora("org/adapter"))
    assert adapters.name(_lora("org/adapter")) != adapters.name(_lora("org/adapter", 2))
    assert adapters.name(_lora("org/adapter")) != Adapters().name(_lora("org/adapter"))
    assert adapters.name(_lora("org/adapter", in_place=True)) is None


def test_an_adapter_folder_with_a_dangling_link_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "adapter.safetensors").symlink_to(tmp_path / "gone")
    assert Adapters().name(_lora(tmp_path)) is not None


def test_a_home_folder_is_read_as_vllm_reads_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").mkdir()
    assert Adapters().name(_lora("~/a")) == Adapters().name(_lora("~/a"))


def test_a_request_whose_adapter_has_no_name_is_not_cached(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        requests = Requests(cache, Failures(), has_named_items=True)
        one = request("a", BLOCK)
        one.lora_request = _lora("org/adapter", in_place=True)
        assert requests.track(one).sequence is None


def test_items_that_vllm_only_counts_are_not_cached() -> None:
    def engine(cache_gb: float, prefix_caching: bool) -> SimpleNamespace:
        multimodal = SimpleNamespace(mm_processor_cache_gb=cache_gb)
        return SimpleNamespace(
            model_config=SimpleNamespace(multimodal_config=multimodal),
            cache_config=SimpleNamespace(enable_prefix_caching=prefix_caching),
        )

    assert names_items(engine(4, False))
    assert names_items(engine(0, True))
    assert not names_items(engine(0, False))
    text = SimpleNamespace(prompt_token_ids=[1], mm_features=[])
    image = SimpleNamespace(prompt_token_ids=[1], mm_features=[object()])
    assert is_cacheable(text, has_named_items=False)
    assert not is_cacheable(image, has_named_items=False)
    assert is_cacheable(image)
