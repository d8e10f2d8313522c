"""The embedded engine, alone and over a real cache. Needs torch and transformers, and says so when they are missing."""

import json
import logging
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="torch is not installed: the embedded engine is NOT tested")
pytest.importorskip("transformers", reason="transformers is not installed: the embedded engine is NOT tested")

from tiercel import (
    Cache,
    CacheConfig,
    Lookup,
    ModelConfig,
    ThrottledError,
    Ticket,
    TierFailedError,
)
from tiercel.connectors.transformers import (
    ByteTokenizer,
    ChunkDone,
    EmbeddedEngine,
    EngineOptions,
    Generation,
    LoadedModel,
    load_model,
)

CHUNK = 32
OPTIONS = EngineOptions(num_buffers=2, buffer_tokens=512, chunk_tokens=CHUNK)
SMALL_MODEL = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 262, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 1024, "tie_word_embeddings": True, "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(SMALL_MODEL))
    return folder


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, seed=1, num_threads=1)


@pytest.fixture
def seed() -> int:
    """A new seed each time, or the one in TIERCEL_TEST_SEED; shown when the test fails."""
    value = int(os.environ.get("TIERCEL_TEST_SEED") or random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"TIERCEL_TEST_SEED={value}\n")
    return value


def tokens(count: int, seed: int) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.int32)


def open_cache(model_folder: Path, cache_folder: Path, *, num_cpu_blocks: int = 256) -> Cache:
    config = CacheConfig(
        enable_ssd=True,
        num_cpu_blocks=num_cpu_blocks,
        num_ssd_blocks=1024,
        ssd_cache_dir=str(cache_folder),
        load_policy="always",
    )
    return Cache.open(ModelConfig.from_model(str(model_folder), model_id="small"), config)


def answer(engine: EmbeddedEngine, prompt: NDArray[np.int32], count: int = 12) -> tuple[Generation, bytes]:
    """The answer, and the bytes of all settled KV behind it."""
    generation, resident = engine.generate(prompt, max_new_tokens=count)
    for ticket in resident.tickets:
        ticket.wait(10)
    return generation, resident.buffer.block_bytes(0, resident.settled.size)


def answer_alone(loaded: LoadedModel, prompt: NDArray[np.int32], count: int = 12) -> tuple[Generation, bytes]:
    return answer(EmbeddedEngine(loaded, OPTIONS), prompt, count)


def test_the_kv_of_a_token_is_the_same_bits_however_much_was_reused_before_it(loaded: LoadedModel, seed: int) -> None:
    chance = random.Random(seed)
    engine = EmbeddedEngine(loaded, OPTIONS)
    whole = tokens(400, seed)
    reused = 0
    for _ in range(12):
        prompt = whole[: chance.randrange(2, 400)]
        with_reuse, kv = answer(engine, prompt)
        without, expected = answer_alone(loaded, prompt)
        assert with_reuse.tokens == without.tokens
        assert kv == expected
        reused += sum(with_reuse.reused_tokens.values())
    assert reused > 0


def test_kv_restored_from_the_host_tier_is_byte_equal_and_gives_the_same_tokens(
    loaded: LoadedModel, model_folder: Path, tmp_path: Path
) -> None:
    prompt = tokens(300, 2)
    with open_cache(model_folder, tmp_path) as cache:
        answer(EmbeddedEngine(loaded, OPTIONS, cache), prompt)
        restored, kv = answer(EmbeddedEngine(loaded, OPTIONS, cache), prompt)
    assert dict(restored.reused_tokens) == {"host": 288}
    expected, expected_kv = answer_alone(loaded, prompt)
    assert restored.tokens == expected.tokens
    assert kv == expected_kv


def test_a_conversation_goes_on_from_disk_in_a_new_cache(
    loaded: LoadedModel, model_folder: Path, tmp_path: Path
) -> None:
    first = tokens(200, 3)
    with open_cache(model_folder, tmp_path) as cache:
        said, _ = answer(EmbeddedEngine(loaded, OPTIONS, cache), first, 40)
    second = np.concatenate([first, np.array(said.tokens, dtype=np.int32), tokens(30, 4)])
    with open_cache(model_folder, tmp_path) as cache:
        restored, kv = answer(EmbeddedEngine(loaded, OPTIONS, cache), second)
    assert dict(restored.reused_tokens) == {"disk": 224}, "what was decoded up to the chunk's end was stored as well"
    expected, expected_kv = answer_alone(loaded, second)
    assert restored.tokens == expected.tokens
    assert kv == expected_kv


def test_a_block_that_was_damaged_on_disk_is_recomputed_with_all_behind_it(
    loaded: LoadedModel, model_folder: Path, tmp_path: Path
) -> None:
    prompt = tokens(300, 5)
    with open_cache(model_folder, tmp_path) as cache:
        answer(EmbeddedEngine(loaded, OPTIONS, cache), prompt)
        block_bytes = cache.geometry.block_bytes
    (data,) = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= 1024 * block_bytes]
    content = bytearray(data.read_bytes())
    used = next(at for at in range(0, len(content), 4096) if any(content[at : at + 4096]))
    content[used + 100] ^= 1
    data.write_bytes(content)
    with open_cache(model_folder, tmp_path) as cache:
        engine = EmbeddedEngine(loaded, OPTIONS, cache)
        restored, kv = answer(engine, prompt)
    assert sum(restored.reused_tokens.values()) < 288
    assert "load: CORRUPT" in engine.failures
    expected, expected_kv = answer_alone(loaded, prompt)
    assert restored.tokens == expected.tokens
    assert kv == expected_kv


class BrokenCache(Cache):
    """A real cache of which one operation always fails."""

    broken = ""

    def lookup(self, *arguments: Any, **options: Any) -> Lookup:
        if self.broken == "lookup":
            raise TierFailedError("the index is gone")
        return super().lookup(*arguments, **options)

    def load(self, *arguments: Any, **options: Any) -> Ticket:
        if self.broken == "load":
            raise ThrottledError("too many loads")
        return super().load(*arguments, **options)

    def store(self, *arguments: Any, **options: Any) -> Ticket:
        if self.broken == "store":
            raise TierFailedError("the disk is gone")
        return super().store(*arguments, **options)


@pytest.mark.parametrize("broken", ["lookup", "load", "store"])
def test_an_operation_that_fails_becomes_recompute_and_is_logged_once(
    loaded: LoadedModel, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    prompt = tokens(150, 6)
    expected, expected_kv = answer_alone(loaded, prompt)
    config = CacheConfig(num_cpu_blocks=256, load_policy="always")
    with BrokenCache.open(ModelConfig.from_model(str(model_folder), model_id="small"), config) as cache:
        assert isinstance(cache, BrokenCache)
        answer(EmbeddedEngine(loaded, OPTIONS, cache), prompt)
        cache.broken = broken
        engine = EmbeddedEngine(loaded, OPTIONS, cache)
        with caplog.at_level(logging.WARNING, "tiercel.connectors"):
            for start in (0, 1):
                told, kv = answer(engine, prompt[start:])
                if not start:
                    assert (told.tokens, kv) == (expected.tokens, expected_kv)
    assert sum(engine.failures.values()) >= 1
    assert all(kind.startswith(broken) for kind in engine.failures)
    assert len([record for record in caplog.records if record.name.startswith("tiercel.connectors")]) == 1


def test_the_least_recently_used_buffer_gives_way_and_a_shared_beginning_is_copied(loaded: LoadedModel) -> None:
    engine = EmbeddedEngine(loaded, OPTIONS)
    shared = tokens(64, 7)
    prompts = [np.concatenate([shared, tokens(100, 10 + i)]) for i in range(3)]
    kinds = [answer(engine, prompt)[0] for prompt in prompts]
    assert [dict(kind.reused_tokens) for kind in kinds] == [{}, {"engine": 64}, {"engine": 64}]
    assert dict(answer(engine, prompts[2])[0].reused_tokens) == {"engine": 160}
    assert dict(answer(engine, prompts[0])[0].reused_tokens) == {"engine": 64}, "its own buffer was given away"


def test_each_chunk_of_a_prefill_is_told(loaded: LoadedModel) -> None:
    told: list[ChunkDone] = []
    EmbeddedEngine(loaded, OPTIONS).generate(tokens(70, 8), max_new_tokens=1, on_chunk=told.append)
    assert [(chunk.num_tokens, chunk.num_total) for chunk in told] == [(32, 70), (64, 70), (70, 70)]


def test_a_prompt_that_does_not_fit_a_buffer_is_refused(loaded: LoadedModel) -> None:
    engine = EmbeddedEngine(loaded, OPTIONS)
    with pytest.raises(ValueError, match="at most 512"):
        engine.generate(tokens(510, 9), max_new_tokens=3)


def test_a_chunk_that_is_no_multiple_of_a_block_is_refused(
    loaded: LoadedModel, model_folder: Path, tmp_path: Path
) -> None:
    with (
        open_cache(model_folder, tmp_path) as cache,
        pytest.raises(ValueError, match="multiple of the cache's 16 tokens"),
    ):
        EmbeddedEngine(loaded, EngineOptions(chunk_tokens=24), cache)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config"):
        load_model(tmp_path)


def test_an_unknown_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="none of"):
        ByteTokenizer().encode("<|shout|>", "hello")
