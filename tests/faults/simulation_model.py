"""What the simulation knows without the cache: which bytes belong to which prompt, and the engine memory that checks them.

A block's content is a function of its key and of the generation, which a reset begins: bytes of an earlier generation, of
another block or torn ones are all seen.
"""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.helpers.small_engine import config
from tiercel import BlockStatus, CacheConfig, EngineMemory, ModelConfig, Ticket
from tiercel.layout import BlockGeometry, EngineBlocks

GEOMETRY_MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=8, dtype="float16", model_id="simulated")
TOKENS_PER_BLOCK = 16
NUM_FAMILIES = 4
NUM_PROMPTS = 24
BLOCKS_MAX = 12
SHARED_BLOCKS = 5
"""Prompts of a family have their first blocks in common."""

NUM_REGIONS = 8
POISON = 0xEEEE

Content = NDArray[np.uint16]
"""uint16[num_blocks, 2, 16, 1, 8]: keys and values of each block."""


def sim_config(directories: list[Path], **settings: object) -> CacheConfig:
    """A cache that overflows all the time: 40 blocks in memory, 100 on disk, of 216 that exist."""
    values: dict[str, object] = {
        "ssd_cache_dir": [str(path) for path in directories],
        "ssd_io_engine": "threads",
        "ssd_direct_io": False,
        "ssd_cache_iouring_entries": 4,
        "journal_checkpoint_bytes": 8192,
        "cpu_hugepages": False,
        "evict_ratio": 0.05,
    }
    return config(None, host=40, disk=100, **(values | settings))


@dataclass(frozen=True, kw_only=True, eq=False)
class Flight:
    """A ticket that is not settled, and what it may rely on."""

    ticket: Ticket
    region: int
    prompt: int
    generation: int
    store: bool


class Model:
    """Prompts, and what their blocks contain in the current generation."""

    def __init__(self) -> None:
        families = [_tokens(SHARED_BLOCKS, 1000 + family) for family in range(NUM_FAMILIES)]
        self._tokens = [
            np.concatenate((families[prompt % NUM_FAMILIES], _tokens(BLOCKS_MAX - SHARED_BLOCKS, prompt)))
            for prompt in range(NUM_PROMPTS)
        ]
        self.generation = 0
        self._contents: dict[tuple[int, int], Content] = {}

    def tokens(self, prompt: int, num_blocks: int | None) -> NDArray[np.int32]:
        stop = None if num_blocks is None else num_blocks * TOKENS_PER_BLOCK
        return self._tokens[prompt][:stop]

    def draw_sequence(self, generator: random.Random) -> tuple[int, int]:
        """A prompt, the first ones most often, and a length in blocks."""
        prompt = min(generator.randrange(NUM_PROMPTS), generator.randrange(NUM_PROMPTS))
        return prompt, generator.choice((BLOCKS_MAX, generator.randint(1, BLOCKS_MAX)))

    def content(self, prompt: int, num_blocks: int, generation: int | None = None) -> Content:
        generation = self.generation if generation is None else generation
        whole = self._contents.get((generation, prompt))
        if whole is None:
            blocks = [self._block(prompt, block, generation) for block in range(BLOCKS_MAX)]
            whole = self._contents[generation, prompt] = np.stack(blocks)
        return whole[:num_blocks]

    def reset(self) -> None:
        """What was stored until now must not be served any more."""
        self.generation += 1
        for key in [key for key in self._contents if key[0] < self.generation - 1]:
            del self._contents[key]

    def _block(self, prompt: int, block: int, generation: int) -> Content:
        prefix = self._tokens[prompt][: (block + 1) * TOKENS_PER_BLOCK].tobytes()
        stream = hashlib.shake_128(prefix + generation.to_bytes(8, "little")).digest(2 * 2 * TOKENS_PER_BLOCK * 8)
        return np.frombuffer(stream, np.uint16).reshape(2, TOKENS_PER_BLOCK, 1, 8)


class Engine:
    """Engine memory in regions, one for each ticket in flight; poisoned where no ticket writes."""

    def __init__(self, geometry: BlockGeometry) -> None:
        shape = (NUM_REGIONS * BLOCKS_MAX, TOKENS_PER_BLOCK, 1, 8)
        self._keys = np.full(shape, POISON, np.uint16)
        self._values = np.full(shape, POISON, np.uint16)
        self._memory = EngineMemory.from_arrays(geometry, [self._keys], [self._values], axes="block token head dim")
        self._free = list(range(NUM_REGIONS))

    def take(self) -> int:
        """A region that no ticket uses; what lies there must be as it was left."""
        region = self._free.pop(0)
        window = self._window(region, BLOCKS_MAX)
        assert (self._keys[window] == POISON).all(), "the engine's memory was written after its ticket had ended"
        assert (self._values[window] == POISON).all(), "the engine's memory was written after its ticket had ended"
        return region

    def give_back(self, region: int) -> None:
        window = self._window(region, BLOCKS_MAX)
        self._keys[window] = POISON
        self._values[window] = POISON
        self._free.append(region)

    def blocks(self, region: int, num_blocks: int) -> EngineBlocks:
        window = self._window(region, num_blocks)
        return self._memory.blocks(np.arange(window.start, window.stop))

    def fill(self, region: int, content: Content) -> EngineBlocks:
        window = self._window(region, len(content))
        self._keys[window] = content[:, 0]
        self._values[window] = content[:, 1]
        return self.blocks(region, len(content))

    def check(self, flight: Flight, statuses: NDArray[np.uint8], model: Model) -> None:
        """Assert that every block that is said to have arrived holds its bytes."""
        window = self._window(flight.region, len(statuses))
        content = model.content(flight.prompt, len(statuses), flight.generation)
        arrived = statuses == BlockStatus.OK
        good = (self._keys[window] == content[:, 0]).all(axis=(1, 2, 3))
        good &= (self._values[window] == content[:, 1]).all(axis=(1, 2, 3))
        wrong = np.flatnonzero(arrived & ~good)
        assert len(wrong) == 0, (
            f"wrong bytes: prompt {flight.prompt}, generation {flight.generation}, blocks {wrong.tolist()}: "
            f"{self._keys[window][wrong[0], 0, 0]}, not {content[wrong[0], 0, 0, 0]}"
        )

    def _window(self, region: int, num_blocks: int) -> slice:
        return slice(region * BLOCKS_MAX, region * BLOCKS_MAX + num_blocks)


def _tokens(num_blocks: int, seed: int) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, 50_000, num_blocks * TOKENS_PER_BLOCK, dtype=np.int32)
