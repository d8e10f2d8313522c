"""An engine small enough for tests: its KV is a known function of the tokens before it.

`fill` plays prefill: it writes, for each block of a sequence, bytes derived from the block's key. `check` says whether given
blocks hold exactly those bytes, so a wrong byte, a stale block or a swapped one is always seen.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel import Cache, CacheConfig, EngineMemory, ModelConfig, Sequence, TierName
from tiercel.layout import BlockGeometry, EngineBlocks

MODEL = ModelConfig(num_layers=2, num_kv_heads=2, head_size=16, dtype="float16", model_id="small")
TOKENS_PER_BLOCK = 16
POISON = 0xEE
PROMPT_BLOCKS = 24
"""Blocks of a prompt that `store_prompt` and `load_prompt` make of a seed."""


def config(directory: Path | None = None, *, host: int = 64, disk: int = 0, **settings: object) -> CacheConfig:
    """A cache of `host` blocks in memory and, in `directory`, `disk` blocks; load_policy always unless said otherwise."""
    values: dict[str, object] = {
        "enable_cpu": host > 0,
        "num_cpu_blocks": max(1, host),
        "enable_ssd": disk > 0,
        "num_ssd_blocks": max(1, disk),
        "tokens_per_block": TOKENS_PER_BLOCK,
        "load_policy": "always",
        "cpu_copy_threads": 1,
        **settings,
    }
    if directory is not None:
        values["ssd_cache_dir"] = str(directory)
    return CacheConfig(**values)  # type: ignore[arg-type]


class SmallEngine:
    """KV memory of `num_blocks` blocks, one array per layer and part, poisoned until written."""

    def __init__(self, geometry: BlockGeometry, num_blocks: int = 256) -> None:
        shape = (num_blocks, geometry.tokens_per_block, geometry.num_kv_heads, geometry.head_size)
        self.keys = [np.full(shape, POISON, np.uint16) for _ in range(geometry.num_layers)]
        self.values = [np.full(shape, POISON, np.uint16) for _ in range(geometry.num_layers)]
        self.memory = EngineMemory.from_arrays(geometry, self.keys, self.values, axes="block token head dim")

    def blocks(self, start: int, stop: int) -> EngineBlocks:
        return self.memory.blocks(np.arange(start, stop))

    def fill(self, sequence: Sequence, *, start: int = 0, at: int = 0) -> EngineBlocks:
        """Compute the sequence's full blocks from `start` on into engine blocks from `at` on; returns those."""
        for offset, key in enumerate(sequence.keys(start)):
            for layer, array, part in self._arrays():
                array[at + offset] = block_content(key, layer, part, array[0].shape)
        return self.blocks(at, at + sequence.num_blocks - start)

    def poison(self) -> None:
        for _, array, _ in self._arrays():
            array[:] = POISON

    def check(self, sequence: Sequence, num_blocks: int, *, at: int = 0, first: int = 0) -> None:
        """Assert that blocks of a sequence, from `first` on, lie at engine blocks from `at` on, byte for byte."""
        for block, key in enumerate(sequence.keys(first, first + num_blocks)):
            for layer, array, part in self._arrays():
                expected = block_content(key, layer, part, array[0].shape)
                assert np.array_equal(array[at + block], expected), (
                    f"block {block}, layer {layer}, {'KV'[part]}: wrong bytes"
                )

    def _arrays(self) -> list[tuple[int, NDArray[np.uint16], int]]:
        pairs = zip(self.keys, self.values, strict=True)
        return [(layer, array, part) for layer, pair in enumerate(pairs) for part, array in enumerate(pair)]


def block_content(key: NDArray[np.uint8], layer: int, part: int, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """What a block's keys (part 0) or values of a layer are."""
    num_bytes = 2 * int(np.prod(shape))
    stream = hashlib.shake_128(key.tobytes() + bytes([layer, part])).digest(num_bytes)
    return np.frombuffer(stream, np.uint16).reshape(shape)


def tokens(num_blocks: int, seed: int, *, extra: int = 0) -> NDArray[np.int32]:
    """Random tokens of `num_blocks` blocks and `extra` more."""
    return np.random.default_rng(seed).integers(0, 50_000, num_blocks * TOKENS_PER_BLOCK + extra, dtype=np.int32)


def store_prompt(cache: Cache, engine: SmallEngine, seed: int) -> int:
    """Store a prompt and return how many of its blocks reached the disk."""
    sequence = cache.sequence(tokens(PROMPT_BLOCKS, seed=seed))
    return cache.store(sequence, engine.fill(sequence)).wait(10).blocks_by_tier.get(TierName.DISK, 0)


def load_prompt(cache: Cache, engine: SmallEngine, seed: int) -> int:
    """Load a prompt, check every byte that came, and return how many blocks that was."""
    sequence = cache.sequence(tokens(PROMPT_BLOCKS, seed=seed))
    engine.poison()
    result = cache.load(sequence, engine.blocks(0, PROMPT_BLOCKS)).wait(10)
    engine.check(sequence, result.num_blocks_ok)
    return result.num_blocks_ok
