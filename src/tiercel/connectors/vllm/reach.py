"""How a launch reaches the engine's blocks, and how a copy is ordered with the engine's steps.

| workers | memory | a copy comes after |
|---|---|---|
| in this process | `LocalReach` | an event of the engine's stream; on CPUs nothing, since calls return when they have run |
| in processes of their own | `RankReach` | a mark of the step, which each worker sets (`plans.RankPlan`) |
"""

import tempfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol

import numpy as np
import torch

from tiercel import Cache, EngineBlocks, EngineMemory, RankGroup, RankTimeouts
from tiercel.connectors.vllm.plans import RankPlan
from tiercel.ranks import RankBlocks

JOIN_S = 600.0
"""Longest wait of workers for the cache to be allocated, and of the cache for workers to pin it."""

STEP_S = 120.0
"""Longest wait of a copy for its step. A ticket's own deadline ends it sooner."""


class Reach(Protocol):
    """The engine's memory for launches.

    Attributes:
        fence_wait_s: longest wait for a store to read blocks that vLLM took back; what is not read by then is not stored.
    """

    fence_wait_s: float

    def now(self) -> Any:
        """Where the engine stands in its step, for `blocks`."""

    def blocks(self, block_ids: Iterable[int], after: Any) -> EngineBlocks | RankBlocks:
        """Return blocks that are not touched before the engine has passed that point."""
        ...

    def close(self) -> None:
        """Let go of the memory. Idempotent."""


class LocalReach:
    """Blocks in this process."""

    fence_wait_s = 0.05

    def __init__(self, memory: EngineMemory) -> None:
        self._memory = memory

    def now(self) -> Any:
        """An event behind everything that vLLM has given its stream to do; None where calls return when they have run."""
        return stream_event(self._memory)

    def blocks(self, block_ids: Iterable[int], after: Any) -> EngineBlocks:
        """Return blocks behind an event."""
        return self._memory.blocks(np.fromiter(block_ids, np.int64), after=after)

    def close(self) -> None:
        """Nothing is held."""


class RankReach:
    """Blocks whose parts lie in workers' processes.

    Attributes:
        mark: where the step stands whose plan is being launched.
    """

    fence_wait_s = 0.0
    """None: this is the scheduler's thread, and what a store of blocks taken back has not read is not stored."""

    def __init__(self, cache: Cache, num_ranks: int, directory: Path) -> None:
        """Wait until every worker has joined; the directory is only there so long.

        Raises:
            ConfigError, DeviceError, DeadlineError, OSError: as `RankGroup` and `RankGroup.wait_ready`.
        """
        self.mark = 0
        timeouts = RankTimeouts(copy_s=STEP_S)
        self._group = RankGroup(
            cache.geometry, cache.shared_memory, num_ranks=num_ranks, directory=directory, timeouts=timeouts
        )
        try:
            self._group.wait_ready(JOIN_S)
        except BaseException:
            self._group.close()
            raise
        finally:
            rmtree(directory, ignore_errors=True)

    def now(self) -> int:
        """The step's mark."""
        return self.mark

    def blocks(self, block_ids: Iterable[int], after: int) -> RankBlocks:
        """Return blocks behind a mark."""
        return self._group.blocks(np.fromiter(block_ids, np.int64), after_step=after)

    def begin(self, plan: RankPlan) -> None:
        """What is launched from now on waits for the step to begin."""
        self.mark = plan.start_mark

    def end(self, plan: RankPlan) -> None:
        """What is launched from now on waits for the step to be enqueued."""
        self.mark = plan.end_mark

    def close(self) -> None:
        """Let the workers go; bounded."""
        self._group.close()


def stream_event(memory: EngineMemory) -> Any:
    """Return an event behind what vLLM has given its stream to do; None on CPUs."""
    if memory.device == "cpu":
        return None
    event = torch.cuda.Event()
    event.record()
    return event


def meeting_place(vllm_config: Any) -> Path:
    """Return the directory in which an engine's workers find its cache: one for each engine and start."""
    names = (str(vllm_config.kv_transfer_config.engine_id), str(vllm_config.instance_id))
    digest = sha256("\0".join(names).encode()).hexdigest()
    return Path(tempfile.gettempdir()) / f"tiercel-{digest[:20]}"
