"""What is simulated: a cache's control settings, the links between its tiers, and the engine that asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tiercel.control import ControlSettings
from tiercel.costs import PrefillCurve
from tiercel.tiers.base import TierName
from tiercel.transfer import TransferSettings

REPLICAS_MAX = 1024
"""More engines than share one cache; each request looks at all of them."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A way for bytes that all transfers of its kind share: in turns, chunk by chunk, loads ahead of stores.

    Attributes:
        latency_s: time before the first byte of a transfer.
        bytes_per_s: rate of all transfers together.
    """

    latency_s: float
    bytes_per_s: float

    def __post_init__(self) -> None:
        """Raises ValueError for a latency below 0 or a rate that is not above it."""
        if not 0 <= self.latency_s < float("inf"):
            raise ValueError(f"latency_s = {self.latency_s}: must be 0 or more seconds")
        if not self.bytes_per_s > 0:
            raise ValueError(f"bytes_per_s = {self.bytes_per_s}: must be above 0; inf for a link that takes no time")


@dataclass(frozen=True, kw_only=True)
class EngineModel:
    """One engine: prefills one after the other, decodes beside them; or both in steps that requests share.

    Attributes:
        prefill: seconds to compute new tokens behind cached ones; the first of a request's output tokens comes with it.
        decode_token_s: seconds between two tokens that a request generates.
        gpu_blocks: blocks of the engine's own prefix cache in GPU memory, in blocks of the cache's size; 0 for none.
        replicas: engines that share the cache, each request going to the one that is free first.
        stores_output: whether blocks that decoding fills are stored, too.
        step_tokens: tokens that one step computes at most, of all its requests together (chunked prefill; vLLM's
            max_num_batched_tokens); 0 for prompts that are computed one after the other.
    """

    prefill: PrefillCurve
    decode_token_s: float = 0.0
    gpu_blocks: int = 0
    replicas: int = 1
    stores_output: bool = True
    step_tokens: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what no engine could be."""
        if not 1 <= self.replicas <= REPLICAS_MAX:
            remedy = "count the engines of one cache, and simulate others by themselves"
            raise ValueError(f"replicas = {self.replicas}: must be 1 to {REPLICAS_MAX}; {remedy}")
        if self.gpu_blocks < 0:
            raise ValueError(f"gpu_blocks = {self.gpu_blocks}: must not be negative; 0 for no prefix cache")
        if self.step_tokens < 0:
            raise ValueError(f"step_tokens = {self.step_tokens}: must not be negative; 0 for an engine without steps")
        if not 0 <= self.decode_token_s < float("inf"):
            raise ValueError(f"decode_token_s = {self.decode_token_s}: must be 0 or more seconds")


@dataclass(frozen=True, kw_only=True)
class SimulationSetup:
    """Everything a run depends on, beside its trace.

    Attributes:
        reads, writes: of each tier, the link from it towards the engine, and the one into it.
        speedup: arrivals of the trace, and those behind another request, come this many times faster.
        deadline_s: a load that takes longer is given up and recomputed; so is every other operation.
    """

    control: ControlSettings
    reads: Mapping[TierName, Link]
    writes: Mapping[TierName, Link]
    engine: EngineModel
    speedup: float = 1.0
    deadline_s: float = 30.0
    shared: frozenset[TierName] = field(default=frozenset({TierName.DISK}))
    """Tiers whose reads and writes share one link: a device that does one at the cost of the other."""
    transfer: TransferSettings = field(default_factory=TransferSettings)
    """Chunks and queues of the cache: `chunk_bytes`, `gpu_chunk_bytes` and `queue_depth_max` are modelled."""
    relieves_when_idle: bool = False
    """Whether room ahead of need is made only when nothing else is under way, as in a replay in lockstep."""
    notes: tuple[str, ...] = ()
    """What was assumed where nobody measured, a sentence each."""

    def __post_init__(self) -> None:
        """Raises ValueError for what no run could begin with."""
        tiers = set(self.control.capacities)
        if not tiers:
            raise ValueError("control.capacities is empty: give at least one tier")
        for name, links in (("reads", self.reads), ("writes", self.writes)):
            if missing := sorted(tier.name.lower() for tier in tiers - set(links)):
                raise ValueError(f"{name} has no link for {', '.join(missing)}: give one for each tier with a capacity")
        for name, value in (("speedup", self.speedup), ("deadline_s", self.deadline_s)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} = {value}: must be a positive number")
