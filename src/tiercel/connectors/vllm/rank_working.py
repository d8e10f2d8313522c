"""The worker's half in a process of its own: it copies its share of every block, and marks the steps that copies wait for.

    handle_preemptions       wait for copies that were given up (microseconds)
    bind_connector_metadata  mark that the step begins: loads may write
    (forward pass)
    wait_for_save            mark that it is enqueued: stores may read
    get_finished             report what the plan says has ended

The scheduler's process launches everything (`launching`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiercel import ConfigError, EngineMemory, RankAgent
from tiercel.connectors.vllm.facts import whole_group
from tiercel.connectors.vllm.model import ModelBlocks, describe_model, num_shares
from tiercel.connectors.vllm.pages import distinct_layers, map_memory
from tiercel.connectors.vllm.plans import RankPlan
from tiercel.connectors.vllm.reach import JOIN_S, STEP_S, meeting_place, stream_event
from tiercel.connectors.vllm.settings import ConnectorSettings


@dataclass(frozen=True, kw_only=True)
class RankDescription:
    """What a worker tells the scheduler's role before the cache is opened, by vLLM's handshake."""

    blocks: ModelBlocks


class RankWorker:
    """Serves one rank's memory. Called from the worker's thread."""

    def __init__(self, vllm_config: Any, rank: int, settings: ConnectorSettings) -> None:
        self._vllm_config = vllm_config
        self._rank = rank
        self._settings = settings
        self._memory: EngineMemory | None = None
        self._blocks: ModelBlocks | None = None
        self._agent: RankAgent | None = None
        self._plan = RankPlan(step=0)

    def register(self, vllm_config: Any, kv_cache_config: Any, kv_caches: Mapping[str, Any], version: str) -> None:
        """Describe this rank's KV tensors. Raises ConfigError: they are not laid out as any known backend's."""
        self.close()
        layers = distinct_layers(whole_group(kv_cache_config).layer_names, kv_caches)
        self._blocks = describe_model(vllm_config, kv_cache_config, layers, self._settings, version)
        heads = None
        shares = num_shares(vllm_config, kv_cache_config)
        if shares > 1:
            share = self._rank * shares // vllm_config.parallel_config.tensor_parallel_size
            heads = (share, share + 1)
        threads = self._settings.cache.cpu_copy_threads
        self._memory = map_memory(self._blocks.geometry, layers, kv_cache_config.num_blocks, threads, heads=heads)

    def describe(self) -> RankDescription:
        """Begin to look for the cache, which the scheduler's role opens next. Returns what it needs to know for that."""
        assert self._memory is not None, "vLLM registers its KV caches before it asks"
        assert self._blocks is not None
        if self._agent is None:
            self._agent = self._look_for_cache(self._memory)
        return RankDescription(blocks=self._blocks)

    def _look_for_cache(self, memory: EngineMemory) -> RankAgent:
        place = meeting_place(self._vllm_config)
        return RankAgent(place, self._rank, memory, connect_timeout_s=JOIN_S, step_timeout_s=STEP_S)

    def fence(self, plan: RankPlan) -> None:
        """Wait until no copy that was given up touches blocks that this step may use. Raises DeadlineError: one does not end."""
        if self._agent is not None:
            self._agent.fence()

    def begin(self, plan: RankPlan) -> None:
        """Mark that a step begins; first, join anew if the cache's memory is another one."""
        if plan.meeting != self._plan.meeting:
            assert self._memory is not None
            self.close()
            self._agent = self._look_for_cache(self._memory)
        self._plan = plan
        if plan.marks_start:
            self._mark(plan.start_mark)

    def load(self, plan: RankPlan) -> None:
        """Loads were launched when the step was scheduled."""

    def store(self, plan: RankPlan) -> None:
        """Mark that the step has been enqueued."""
        if plan.marks_end:
            self._mark(plan.end_mark)

    def finished(self, finished_ids: set[str]) -> tuple[set[str], set[str]]:
        """Return what the plan says."""
        return set(self._plan.sent), set(self._plan.received)

    def take_failed_blocks(self) -> set[int]:
        """Return what the plan says."""
        return set(self._plan.failed_blocks)

    def close(self) -> None:
        """Let go of the cache's memory; bounded. Idempotent."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    def _mark(self, mark: int) -> None:
        assert self._agent is not None, "vLLM asks for the description before the first step"
        assert self._memory is not None
        self._agent.mark_step(mark, stream_event(self._memory))


def agreed_blocks(descriptions: Mapping[int, Any], num_ranks: int) -> ModelBlocks:
    """Return what all workers described alike.

    Args:
        descriptions: `RankDescription` by rank.

    Raises:
        ConfigError: they differ, or some are missing.
    """
    if sorted(descriptions) != list(range(num_ranks)):
        raise ConfigError(f"workers {sorted(descriptions)} of {num_ranks} told TiercelConnector what they hold")
    others = {type(one).__name__ for one in descriptions.values() if not isinstance(one, RankDescription)}
    if others:
        raise ConfigError(
            f"workers told what another connector holds ({', '.join(others)}), and nothing of TiercelConnector: MultiConnector "
            f"lets only the first speak that has anything to say; name TiercelConnector first in its connectors"
        )
    first: ModelBlocks = descriptions[0].blocks
    odd = [rank for rank, description in descriptions.items() if description.blocks != first]
    if odd:
        raise ConfigError(
            f"workers {odd} keep other blocks than worker 0: {descriptions[odd[0]].blocks.geometry} and {first.geometry}; "
            f"run all ranks of one engine from the same installation and on the same kind of device"
        )
    return first
