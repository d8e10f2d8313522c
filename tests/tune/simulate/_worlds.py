"""Small traces and setups whose times can be worked out by hand: blocks of 16 tokens and 1,000 bytes."""

from dataclasses import replace
from typing import Any

from tiercel.control import ControlSettings
from tiercel.costs import PrefillCurve
from tiercel.plan import LoadPolicy
from tiercel.tiers.base import TierName
from tiercel.transfer import TransferSettings
from tiercel.tune.simulate import EngineModel, Link, SimulationSetup
from tiercel.tune.traces import Trace, TraceBuilder

HOST, DISK = TierName.HOST, TierName.DISK
SIZE = 16
BLOCK_BYTES = 1000
INSTANT = Link(latency_s=0.0, bytes_per_s=float("inf"))


def make_setup(host: int = 0, disk: int = 0, **changes: Any) -> SimulationSetup:
    """A cache that loads whatever it has, over links that take no time, and an engine of a second a block."""
    capacities = {tier: slots for tier, slots in ((HOST, host), (DISK, disk)) if slots}
    control_changes = changes.pop("control", {})
    engine_changes = changes.pop("engine", {})
    setup = SimulationSetup(
        control=ControlSettings(
            capacities=capacities,
            tokens_per_block=SIZE,
            block_bytes=BLOCK_BYTES,
            **{"load_policy": LoadPolicy.ALWAYS, **control_changes},
        ),
        reads={HOST: INSTANT, DISK: INSTANT},
        writes={HOST: INSTANT, DISK: INSTANT},
        engine=EngineModel(
            **{"prefill": PrefillCurve(token_s=1 / SIZE), "decode_token_s": 0.0, "stores_output": False}
            | engine_changes
        ),
        transfer=TransferSettings(chunk_bytes=BLOCK_BYTES, gpu_chunk_bytes=BLOCK_BYTES),
    )
    return replace(setup, **changes)


def link(block_s: float, latency_s: float = 0.0) -> Link:
    """A link that moves a block in so many seconds."""
    return Link(latency_s=latency_s, bytes_per_s=BLOCK_BYTES / block_s)


def make_trace(*requests: tuple[float, list[int]], **columns: Any) -> Trace:
    """Requests of whole blocks: (arrival, names of the blocks)."""
    builder = TraceBuilder("hand-made", tokens_per_block=SIZE)
    for number, (arrival_s, names) in enumerate(requests):
        extra = {key: values[number] for key, values in columns.items()}
        extra.setdefault("input_tokens", SIZE * len(names))
        builder.add(names, arrival_s=arrival_s, **extra)
    return builder.build()
