"""Engines with KV memory on a GPU whose bytes are a known function of a prompt's seed, and clients of a node that have one, in
processes of their own. Needs PyTorch and a GPU; imported by tests/gpu only, and by nothing that must run without."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.helpers.small_engine import TOKENS_PER_BLOCK, tokens
from tiercel import BlockGeometry, EngineMemory, ModelConfig, NodeClient, RankAgent, Sequence, Ticket, connect

MODEL = ModelConfig(num_layers=8, num_kv_heads=8, head_size=128, dtype="float16", model_id="gpu-node")
BLOCKS = 64
"""Blocks of a prompt: 32 MiB."""
WAIT_S = 60.0
CYCLES_PER_S = 1_700_000_000


class GpuEngine:
    """Blocks of all heads, or of some, on one GPU; zero until written."""

    def __init__(
        self, geometry: BlockGeometry, num_blocks: int, *, heads: tuple[int, int] | None = None, device: str = "cuda:0"
    ) -> None:
        self._geometry, self._heads = geometry, heads or (0, geometry.num_kv_heads)
        shape = (2, num_blocks, geometry.tokens_per_block, self._heads[1] - self._heads[0], geometry.head_size)
        self.layers = [torch.zeros(shape, dtype=torch.float16, device=device) for _ in range(geometry.num_layers)]
        self.memory = EngineMemory.from_arrays(
            geometry, self.layers, axes="kv block token head dim", head_range=self._heads
        )

    def fill(self, seed: int, at: int, *, num_blocks: int = BLOCKS, busy_s: float = 0.0) -> torch.cuda.Event:
        """Write a prompt's KV on a stream that is busy for so long first. Returns the event behind it."""
        stream = torch.cuda.Stream(self.layers[0].device)
        with torch.cuda.stream(stream):
            torch.cuda._sleep(int(busy_s * CYCLES_PER_S))
            for number, layer in enumerate(self.layers):
                layer[:, at : at + num_blocks] = self._content(seed, number, num_blocks).view(torch.float16)
            event = torch.cuda.Event()
            event.record(stream)
        return event

    def num_right(self, seed: int, at: int, *, num_blocks: int = BLOCKS) -> int:
        """How many leading blocks from `at` on hold exactly a prompt's bytes."""
        torch.cuda.synchronize()
        right = torch.ones(num_blocks, dtype=torch.bool, device=self.layers[0].device)
        for number, layer in enumerate(self.layers):
            found = layer[:, at : at + num_blocks].view(torch.int16)
            equal = found == self._content(seed, number, num_blocks)
            right &= equal.transpose(0, 1).reshape(num_blocks, -1).all(dim=1)
        wrong = (~right).nonzero()
        return int(wrong[0]) if len(wrong) else num_blocks

    def clear(self) -> None:
        """Forget every byte."""
        for layer in self.layers:
            layer.zero_()
        torch.cuda.synchronize()

    def _content(self, seed: int, layer: int, num_blocks: int) -> torch.Tensor:
        geometry = self._geometry
        shape = (num_blocks, 2, geometry.tokens_per_block, geometry.num_kv_heads, geometry.head_size)
        numbers = torch.arange(int(np.prod(shape)), dtype=torch.int64, device=self.layers[0].device)
        mixed = ((numbers + (layer << 32) + 1) * 2654435761 + seed * 40503) >> 7
        whole = (mixed & 0x7FFF).to(torch.int16).reshape(shape).transpose(0, 1)
        return whole[:, :, :, slice(*self._heads)]


class GpuClient:
    """A node's client with an engine on the GPU; in the test's process, or behind a `Served`."""

    def __init__(self, endpoint: str, name: str = "client", num_blocks: int = 4 * BLOCKS) -> None:
        self.client: NodeClient = connect(endpoint, name=name, wait_s=WAIT_S)
        self.engine = GpuEngine(self.client.geometry, num_blocks)
        self.under_way: list[Ticket] = []
        self.client.devices.attach(self.engine.memory)

    def sequence(self, seed: int) -> Sequence:
        """The prompt of a seed."""
        return self.client.sequence(tokens(BLOCKS, seed=seed))

    def begin_store(self, seed: int, at: int = 0, busy_s: float = 0.0) -> Ticket:
        """Compute a prompt behind that long a pass, and store it."""
        event = self.engine.fill(seed, at, busy_s=busy_s)
        blocks = self.engine.memory.blocks(np.arange(at, at + BLOCKS), after=event)
        return self.client.store(self.sequence(seed), blocks)

    def store(self, seed: int, at: int = 0) -> int:
        """Store a prompt. Returns the blocks stored."""
        return self.begin_store(seed, at).wait(WAIT_S).num_blocks_ok

    def load(self, seed: int, at: int = BLOCKS) -> tuple[int, int]:
        """Load a prompt. Returns how many blocks are said to be loaded, and how many hold the right bytes."""
        result = self.client.load(self.sequence(seed), self.engine.memory.blocks(np.arange(at, at + BLOCKS))).wait(
            WAIT_S
        )
        return result.num_blocks_ok, self.engine.num_right(seed, at)

    def churn(self, seed: int, busy_s: float) -> None:
        """Leave loads of a stored prompt and a store of another under way, behind a pass that long; return at once."""
        first = self.engine.fill(seed + 1, 0, busy_s=busy_s)
        ids = [np.arange(at, at + BLOCKS) for at in (0, BLOCKS, 2 * BLOCKS)]
        self.under_way = [
            self.client.store(self.sequence(seed + 1), self.engine.memory.blocks(ids[0], after=first)),
            *(self.client.load(self.sequence(seed), self.engine.memory.blocks(each, after=first)) for each in ids[1:]),
        ]

    def close(self) -> None:
        """Leave the node."""
        self.client.close()


class GpuRank:
    """A rank whose share of each block lies on the GPU."""

    def __init__(self, directory: Path, rank: int, num_ranks: int, num_blocks: int) -> None:
        geometry = BlockGeometry.from_model(MODEL, tokens_per_block=TOKENS_PER_BLOCK)
        share = geometry.num_kv_heads // num_ranks
        device = f"cuda:{rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
        self.engine = GpuEngine(geometry, num_blocks, heads=(rank * share, (rank + 1) * share), device=device)
        self.agent = RankAgent(directory, rank, self.engine.memory)
        self.agent.wait_ready(WAIT_S)

    def compute(self, step: int, seed: int, at: int, busy_s: float) -> None:
        """Enqueue a step that writes a prompt's KV, and mark it."""
        self.agent.fence()
        self.agent.mark_step(step, self.engine.fill(seed, at, busy_s=busy_s))

    def num_right(self, seed: int, at: int) -> int:
        """As `GpuEngine.num_right`."""
        return self.engine.num_right(seed, at)

    def close(self) -> None:
        """Let go of the cache's memory."""
        self.agent.close()


class Served:
    """One of the two above in a process of its own, which does as it is told through a pipe."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.helpers.gpu_clients", "tests.helpers.node_client"])
        forkserver.ensure_running()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait_made(self) -> None:
        """Wait until it is there."""
        assert self.read() == "made"

    def ask(self, what: str, *arguments: Any) -> Any:
        """Have a method called; returns what it returns."""
        self.tell(what, *arguments)
        return self.read()

    def tell(self, what: str, *arguments: Any) -> None:
        """Have a method called, without waiting."""
        self._pipe.send((what, arguments))

    def read(self) -> Any:
        """What it says next."""
        assert self._pipe.poll(WAIT_S), f"process {self.pid} says nothing"
        return self._pipe.recv()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


def _serve(make: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection) -> None:
    one = make(*arguments)
    pipe.send("made")
    with suppress(EOFError):
        while True:
            what, asked = pipe.recv()
            pipe.send(getattr(one, what)(*asked))
    one.close()
