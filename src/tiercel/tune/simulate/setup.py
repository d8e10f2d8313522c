"""What is simulated: a cache's control settings, the links between its tiers, and the engine that asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tiercel.control import ControlSettings
from tiercel.costs import PrefillCurve
from tiercel.tiers.base import TierName


@dataclass(frozen=True, kw_only=True)
class Link:
    """A way for bytes that all transfers of its kind share: first come, first served, loads ahead of stores.

    Attributes:
        latency_s: time before the first byte of a transfer.
        bytes_per_s: rate of all transfers together.
    """

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class EngineModel:
    """One engine: prefills one after the other, decodes beside them.

    Attributes:
        prefill: seconds to compute new tokens behind cached ones.
        decode_token_s: seconds between two tokens that a request generates.
        gpu_blocks: blocks of the engine's own prefix cache in GPU memory, in blocks of the cache's size; 0 for none.
        replicas: engines that share the cache, each request going to the one that is free first.
        stores_output: whether blocks that decoding fills are stored, too.
    """

    prefill: PrefillCurve
    decode_token_s: float = 0.0
    gpu_blocks: int = 0
    replicas: int = 1
    stores_output: bool = True


@dataclass(frozen=True, kw_only=True)
class SimulationSetup:
    """Everything a run depends on, beside its trace.

    Attributes:
        reads, writes: the link from a tier towards the engine, and the one into it.
        speedup: arrivals of the trace come this many times faster.
        deadline_s: a load that takes longer is given up and recomputed.
    """

    control: ControlSettings
    reads: Mapping[TierName, Link]
    writes: Mapping[TierName, Link]
    engine: EngineModel
    speedup: float = 1.0
    deadline_s: float = 30.0
    shared: frozenset[TierName] = field(default=frozenset({TierName.DISK}))
    """Tiers whose reads and writes share one link: a device that does one at the cost of the other."""
