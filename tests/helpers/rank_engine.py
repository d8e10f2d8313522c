"""A small tensor-parallel engine: each rank's KV is its heads' part of a known function of the tokens.

`Ranks` keeps the ranks in threads of this process, so that a test can hold each copy where it likes; `RankProcess` is a rank in a
process of its own, to be stopped and killed.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.helpers.small_engine import POISON, TOKENS_PER_BLOCK, block_content, config
from tiercel import BlockGeometry, Cache, EngineBlocks, EngineMemory, ModelConfig, RankAgent, RankGroup, RankTimeouts

MODEL = ModelConfig(num_layers=2, num_kv_heads=4, head_size=16, dtype="float16", model_id="ranks")
MLA_MODEL = ModelConfig(num_layers=2, num_kv_heads=1, head_size=32, dtype="float16", model_id="latent", use_mla=True)
NUM_BLOCKS = 96
WAIT_S = 20.0


def heads_of(rank: int, num_ranks: int, num_heads: int = MODEL.num_kv_heads) -> tuple[int, int]:
    """The heads of a rank: its share, or where there are fewer heads than ranks, one that others hold too."""
    if num_ranks > num_heads:
        head = rank * num_heads // num_ranks
        return head, head + 1
    share = num_heads // num_ranks
    return rank * share, (rank + 1) * share


class RankShard:
    """One rank's KV memory, poisoned until written."""

    def __init__(self, geometry: BlockGeometry, heads: tuple[int, int], num_blocks: int = NUM_BLOCKS) -> None:
        self._geometry, self._heads = geometry, heads
        shape: tuple[int, ...] = (num_blocks, geometry.tokens_per_block, heads[1] - heads[0], geometry.head_size)
        axes = "block token head dim"
        if geometry.kv_parts == 1:
            shape, axes = (num_blocks, geometry.tokens_per_block, geometry.head_size), "block token dim"
        parts = [
            [np.full(shape, POISON, np.uint16) for _ in range(geometry.num_layers)] for _ in range(geometry.kv_parts)
        ]
        self._arrays = [(layer, part, array) for part, arrays in enumerate(parts) for layer, array in enumerate(arrays)]
        values = parts[1] if geometry.kv_parts == 2 else None
        self.memory = EngineMemory.from_arrays(geometry, parts[0], values, axes=axes, head_range=heads)

    def fill(self, keys: NDArray[np.uint8], *, at: int = 0) -> None:
        """Compute blocks of these keys into blocks from `at` on."""
        for block, key in enumerate(keys, at):
            for layer, part, array in self._arrays:
                array[block] = self._content(key, layer, part)

    def poison(self) -> None:
        for _, _, array in self._arrays:
            array[:] = POISON

    def num_right(self, keys: NDArray[np.uint8], *, at: int = 0) -> int:
        """How many leading blocks from `at` on hold exactly what their keys say."""
        for block, key in enumerate(keys):
            for layer, part, array in self._arrays:
                if not np.array_equal(array[at + block], self._content(key, layer, part)):
                    return block
        return len(keys)

    def is_poisoned(self, start: int, stop: int) -> bool:
        """Whether nothing was written to blocks [start, stop)."""
        return all(bool((array[start:stop] == POISON).all()) for _, _, array in self._arrays)

    def _content(self, key: NDArray[np.uint8], layer: int, part: int) -> NDArray[np.uint16]:
        geometry = self._geometry
        whole = block_content(key, layer, part, (geometry.tokens_per_block, geometry.num_kv_heads, geometry.head_size))
        return whole[:, 0] if geometry.kv_parts == 1 else whole[:, slice(*self._heads)]


class HeldMemory:
    """A rank's memory whose copies begin and then wait for a gate."""

    def __init__(self, memory: EngineMemory) -> None:
        self._memory = memory
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def blocks(self, ids: NDArray[np.int64], *, after: object | None = None) -> "_HeldBlocks":
        return _HeldBlocks(self, self._memory.blocks(ids, after=after))


class _HeldBlocks:
    def __init__(self, memory: HeldMemory, blocks: EngineBlocks) -> None:
        self.memory, self._blocks = memory, blocks

    def gather(self, targets: NDArray[np.uint64]) -> None:
        self._wait()
        self._blocks.gather(targets)

    def scatter(self, sources: NDArray[np.uint64]) -> None:
        self._wait()
        self._blocks.scatter(sources)

    def _wait(self) -> None:
        self.memory.begun.release()
        assert self.memory.gate.wait(WAIT_S)


class Ranks:
    """A group and its ranks, all in this process."""

    def __init__(
        self,
        cache: Cache,
        directory: Path,
        num_ranks: int,
        *,
        timeouts: RankTimeouts = RankTimeouts(),  # noqa: B008 - frozen
        **agent_arguments: Any,
    ) -> None:
        geometry = cache.geometry
        self._stack = ExitStack()
        self.group = RankGroup(
            geometry, cache.shared_memory, num_ranks=num_ranks, directory=directory, timeouts=timeouts
        )
        self._stack.callback(self.group.close)
        self.shards = [RankShard(geometry, heads_of(r, num_ranks, geometry.num_kv_heads)) for r in range(num_ranks)]
        self.held = [HeldMemory(shard.memory) for shard in self.shards]
        self.agents = [
            RankAgent(directory, rank, held, **agent_arguments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            for rank, held in enumerate(self.held)
        ]
        for agent in self.agents:
            self._stack.callback(agent.close)
        self.group.wait_ready(WAIT_S)

    def fill(self, keys: NDArray[np.uint8], *, at: int = 0) -> None:
        for shard in self.shards:
            shard.fill(keys, at=at)

    def poison(self) -> None:
        for shard in self.shards:
            shard.poison()

    def num_right(self, keys: NDArray[np.uint8], *, at: int = 0) -> int:
        return min(shard.num_right(keys, at=at) for shard in self.shards)

    def close(self) -> None:
        for held in self.held:
            held.gate.set()
        self._stack.close()

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_cache(directory: Path, *, model: ModelConfig = MODEL, **settings: Any) -> Cache:
    """A cache in a directory; settings as of `small_engine.config`."""
    return Cache.open(model, config(directory, **settings), shares_memory=True)


class RankProcess:
    """A rank in a process of its own, which does as it is told through a pipe."""

    def __init__(self, directory: Path, rank: int, num_ranks: int, model: ModelConfig = MODEL) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.helpers.rank_engine"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(directory, rank, num_ranks, model, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def ask(self, what: str, *arguments: Any) -> Any:
        """Have a method of `_Served` called; returns what it returns."""
        self._pipe.send((what, arguments))
        assert self._pipe.poll(WAIT_S), f"rank process {self.pid} does not answer to {what}"
        return self._pipe.recv()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def join(self) -> int | None:
        """Wait for its end; returns its exit code."""
        self._process.join(WAIT_S)
        return self._process.exitcode

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


class _Served:
    def __init__(self, directory: Path, rank: int, num_ranks: int, model: ModelConfig) -> None:
        geometry = BlockGeometry.from_model(model, tokens_per_block=TOKENS_PER_BLOCK)
        self.shard = RankShard(geometry, heads_of(rank, num_ranks, model.num_kv_heads))
        self.agent = RankAgent(directory, rank, self.shard.memory)

    def fill(self, keys: NDArray[np.uint8]) -> None:
        self.shard.fill(keys)

    def poison(self) -> None:
        self.shard.poison()

    def num_right(self, keys: NDArray[np.uint8]) -> int:
        return self.shard.num_right(keys)

    def mark_step(self, step: int) -> None:
        self.agent.mark_step(step)

    def fence(self) -> None:
        self.agent.fence()

    def holds_shared_memory(self) -> bool:
        """Whether a cache's memory is mapped or open here."""
        files = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
        return "tiercel-arena" in Path("/proc/self/maps").read_text() + " ".join(files)

    def wait_ended(self) -> bool:
        return self.agent.ended.wait(WAIT_S)


def _serve(directory: Path, rank: int, num_ranks: int, model: ModelConfig, pipe: Connection) -> None:
    served = _Served(directory, rank, num_ranks, model)
    try:
        while True:
            what, arguments = pipe.recv()
            pipe.send(getattr(served, what)(*arguments))
    except EOFError:
        served.agent.close()


def ask_all(ranks: Sequence[RankProcess], what: str, *arguments: Any) -> list[Any]:
    """Ask every rank the same."""
    return [rank.ask(what, *arguments) for rank in ranks]


def until(condition: Callable[[], bool]) -> bool:
    """Wait until something holds; False if it does not in time."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(int(WAIT_S / 0.01)))
