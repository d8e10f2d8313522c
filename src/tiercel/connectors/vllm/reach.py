"""How a launch reaches the engine's blocks, and how a copy is ordered with the engine's steps.

| workers | memory | a copy comes after |
|---|---|---|
| in this process | `LocalReach` | an event of the engine's stream; on CPUs nothing, since calls return when they have run |
| in processes of their own | `RankReach` | a mark of the step, which each worker sets (`plans.RankPlan`) |
"""

import logging
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol

import numpy as np
import torch

from tiercel import (
    CacheFacade,
    DeadlineError,
    EngineBlocks,
    EngineMemory,
    NodeClient,
    RankGroup,
    RankTimeouts,
    TiercelError,
)
from tiercel.connectors.vllm.plans import RankPlan
from tiercel.ranks import RankBlocks

_logger = logging.getLogger(__name__)

JOIN_S = 600.0
"""Longest wait of workers for the cache to be allocated, and of the cache for workers to pin it."""

_LOOK_S = 5.0
"""How soon a thread that waits for workers sees that it need not."""

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
        meeting: counts the times that the workers had to join anew.
    """

    fence_wait_s = 0.0
    """None: this is the scheduler's thread, and what a store of blocks taken back has not read is not stored."""

    def __init__(self, cache: CacheFacade, num_ranks: int, directory: Path) -> None:
        """Wait until every worker has joined; the directory is only there so long.

        Raises:
            ConfigError, DeviceError, DeadlineError, OSError: as `RankGroup` and `RankGroup.wait_ready`.
        """
        self.mark = self.meeting = 0
        self._cache = cache
        self._num_ranks = num_ranks
        self._directory = directory
        self._closed = False
        self._lock = threading.Lock()
        shared = cache.shared_memory
        self._group = self._gathering()
        try:
            self._group.wait_ready(JOIN_S)
        except BaseException:
            self._group.close()
            raise
        finally:
            rmtree(directory, ignore_errors=True)
        if isinstance(cache, NodeClient):
            cache.on_new_memory(self._begin_anew)
            if cache.shared_memory is not shared:  # the node has died meanwhile
                self._begin_anew()

    def _gathering(self) -> RankGroup:
        return RankGroup(
            self._cache.geometry,
            self._cache.shared_memory,
            num_ranks=self._num_ranks,
            directory=self._directory,
            timeouts=RankTimeouts(copy_s=STEP_S),
        )

    def _begin_anew(self) -> None:
        """The cache's memory is another one: nothing is copied by workers that have mapped the old one, and they are let in anew.
        They hear of it with the next step; until they have joined, loads and stores fail and become recompute."""
        with self._lock:
            if self._closed:
                return
            self._group.close()
            try:
                group = self._group = self._gathering()
            except (TiercelError, OSError) as error:
                _logger.error("workers cannot join the node's cache any more, everything is computed: %s", error)
                return
            self.meeting += 1
        threading.Thread(target=self._await, args=(group,), name="tiercel-ranks-join", daemon=True).start()

    def _await(self, group: RankGroup) -> None:
        """Let workers in, however long the engine takes no step."""
        try:
            while not self._closed and not group.failure:
                with suppress(DeadlineError):
                    group.wait_ready(_LOOK_S)
                    _logger.info("the workers have joined the node's cache again")
                    break
        except TiercelError as error:
            _logger.error("workers cannot join the node's cache any more, everything is computed: %s", error)
        with self._lock:
            if group is self._group:
                rmtree(self._directory, ignore_errors=True)

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
        with self._lock:
            self._closed = True
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
