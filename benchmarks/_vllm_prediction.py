"""The simulator's word on what a real engine will do, and both held against each other.

A setup is made of the cache's configuration, the engine's own facts and a calibration. What the engine did is brought into
the form of a simulation's result, so that the comparison is `tiercel prove`'s.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _harness import Row
from _vllm_calibration import Calibration
from _vllm_scale import Scale
from _vllm_trace import first
from numpy.typing import NDArray

from tiercel import ModelConfig, TierName
from tiercel.config import load_config
from tiercel.control import control_settings
from tiercel.transfer import TransferSettings
from tiercel.tune.replay import TOLERANCE, simulate_in_lockstep
from tiercel.tune.replay.proof import compare_figures
from tiercel.tune.simulate import (
    EngineFacts,
    Link,
    SimulationResult,
    SimulationSetup,
    TierTraffic,
    make_engine,
    prefill_of_points,
    simulate,
)
from tiercel.tune.traces import Trace

_HOST = TierName.HOST
_ROOT = bytes(16)


def _num_cache_blocks(scale: Scale) -> int:
    """Blocks of vLLM's that can cache something: not its null block, and not the last one of a request, which is not full.

    An engine in the benchmark's own process is moved on by a short request, whose block takes turns with that one.
    """
    in_process = scale.environment.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
    return scale.num_gpu_blocks - 2 - in_process


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much of the trace is replayed, and how fast: arrivals come `speedup` times as fast as the trace says."""

    count: int
    speedup: float


def make_setup(
    scale: Scale, settings: Mapping[str, Any], calibration: Calibration, *, speedup: float = 1.0
) -> SimulationSetup:
    """Return what is simulated.

    Args:
        settings: What the connector was given.
    """
    config = replace(load_config(environ={}, **settings).config, tokens_per_block=scale.block_tokens)
    shape = scale.shape
    model = ModelConfig(
        model_id="vllm_replay",
        num_layers=shape.num_hidden_layers,
        num_kv_heads=shape.num_key_value_heads,
        head_size=shape.head_dim,
        dtype="bfloat16",
    )
    resolved = config.resolve(model)
    prefill = prefill_of_points(calibration.points)
    engine = EngineFacts(
        prefill=prefill,
        decode_token_s=calibration.decode_token_s,
        kv_bytes=_num_cache_blocks(scale) * resolved.block_bytes,
        step_tokens=scale.max_batched_tokens,
    )
    load, store = calibration.load, calibration.store
    return SimulationSetup(
        control=control_settings(resolved, {_HOST: resolved.num_cpu_blocks}),
        reads={_HOST: Link(latency_s=load.latency_s, bytes_per_s=load.bytes_per_s)},
        writes={_HOST: Link(latency_s=store.latency_s, bytes_per_s=store.bytes_per_s)},
        engine=make_engine(engine, resolved.block_bytes),
        speedup=speedup,
        deadline_s=config.transfer_timeout_s,
        transfer=TransferSettings.from_resolved(resolved),
        notes=(prefill.told,),
    )


def choose_pace(trace: Trace, setup: SimulationSetup, *, utilisation: float, span_s: float) -> Pace:
    """Take as many requests as keep the engine computing for that share of the time, by the prediction alone."""
    predicted = simulate_in_lockstep(trace, setup, root=_ROOT)
    busy_s = np.cumsum(predicted.first_token_s - predicted.started_s)
    count = max(2, int(np.searchsorted(busy_s, utilisation * span_s, side="right")))
    count = min(count, trace.num_requests)
    arrivals_s = float(trace.arrivals_s[count - 1])
    while count < trace.num_requests and arrivals_s == 0:  # all at once: no pace would spread them
        count += 1
        arrivals_s = float(trace.arrivals_s[count - 1])
    return Pace(count=count, speedup=arrivals_s * utilisation / float(busy_s[count - 1]))


def predict(trace: Trace, setup: SimulationSetup, *, lockstep: bool) -> SimulationResult:
    """Simulate a trace, one request after the other or as they arrive."""
    return simulate_in_lockstep(trace, setup, root=_ROOT) if lockstep else simulate(trace, setup)


def result_of(trace: Trace, predicted: SimulationResult, record: Mapping[str, Any]) -> SimulationResult:
    """What the engine did with the first requests of a trace, in the form of a simulation's result.

    Args:
        record: "requests" of samples and "counters", what was counted over all of them.
    """
    samples: Sequence[Mapping[str, Any]] = record["requests"]
    size, counters = predicted.tokens_per_block, record["counters"]

    def column(name: str) -> NDArray[np.float64]:
        return np.array([sample[name] for sample in samples], np.float64)

    local, external = (column(name).astype(np.int64) // size for name in ("num_local", "num_external"))
    moved = {
        direction: counters.get(f'tiercel_transfer_bytes_total{{source="{source}",target="{target}"}}', 0.0)
        for direction, source, target in (("read", "host", "gpu"), ("written", "gpu", "host"))
    }
    traffic = TierTraffic(
        blocks_read=round(moved["read"] / predicted.block_bytes),
        blocks_written=round(moved["written"] / predicted.block_bytes),
        evicted=0,
        busy_s=0.0,
        wait_s=0.0,
    )
    started_s = column("started_s")
    return replace(
        predicted,
        input_tokens=trace.input_tokens,
        gpu_blocks=local,
        matched_blocks=local + external,
        hit_blocks={_HOST: external},
        arrived_s=started_s,
        started_s=started_s,
        ready_s=started_s,
        first_token_s=column("first_token_s"),
        ended_s=column("ended_s"),
        tiers={_HOST: traffic},
        refused={},
        notes=(),
    )


def differing(predicted: SimulationResult, measured: SimulationResult) -> list[dict[str, int]]:
    """Requests whose tokens came from elsewhere than predicted."""
    size = predicted.tokens_per_block
    other = (predicted.gpu_blocks != measured.gpu_blocks) | (predicted.hit_blocks[_HOST] != measured.hit_blocks[_HOST])
    return [
        {
            "request": int(number),
            "tokens": int(predicted.input_tokens[number]),
            "gpu predicted": int(predicted.gpu_blocks[number]) * size,
            "gpu measured": int(measured.gpu_blocks[number]) * size,
            "host predicted": int(predicted.hit_blocks[_HOST][number]) * size,
            "host measured": int(measured.hit_blocks[_HOST][number]) * size,
        }
        for number in np.flatnonzero(other)
    ]


def compare(
    pace: str, trace: Trace, setup: SimulationSetup, record: Mapping[str, Any], *, held: bool
) -> tuple[list[Row], dict[str, Any]]:
    """Rows and details of one replay.

    Args:
        pace: "lockstep", where hits must be equal, or "realtime", where figures must be near.
        held: Whether figures have their bound: not in a smoke test, whose machine does other things.
    """
    trace = first(trace, len(record["requests"]))
    predicted = predict(trace, setup, lockstep=pace == "lockstep")
    measured = result_of(trace, predicted, record)
    others = differing(predicted, measured)
    lockstep = pace == "lockstep"
    rows = [
        Row(
            name=f"{pace}: requests whose tokens came from elsewhere",
            value=len(others),
            unit="",
            bound=0 if lockstep else None,
            count=trace.num_requests,
        )
    ]
    figures = []
    for name, unit, before, after, deviation in _figures(predicted, measured):
        bound = 100 * TOLERANCE if held and not lockstep else None
        label = f"{pace}: {name}, predicted {before:.4g} of {after:.4g} {unit}: off by"
        rows.append(Row(name=label, value=100 * abs(deviation), unit="%", bound=bound))
        figures.append({"name": name, "unit": unit, "predicted": before, "measured": after, "deviation": deviation})
    serial = predict(trace, replace(setup, engine=replace(setup.engine, step_tokens=0)), lockstep=lockstep)
    details = {
        "figures": figures,
        "figures, prompts simulated one after the other": [
            dict(zip(("name", "unit", "predicted", "measured", "deviation"), each, strict=True))
            for each in _figures(serial, measured)
        ],
        "differing": others,
        "predicted": {
            "gpu_tokens": (predicted.gpu_blocks * predicted.tokens_per_block).tolist(),
            "host_tokens": (predicted.hit_blocks[_HOST] * predicted.tokens_per_block).tolist(),
            "ttft_s": predicted.ttft_s.tolist(),
            "prefill_busy_s": predicted.prefill_busy_s,
            "span_s": float(predicted.ended_s.max() - predicted.arrived_s.min()),
        },
        "notes": list(predicted.notes),
    }
    return rows, details


def _figures(predicted: SimulationResult, measured: SimulationResult) -> Iterator[tuple[str, str, float, float, float]]:
    """(name, unit, predicted, measured, deviation) of everything that is held."""
    for figure in compare_figures(predicted, measured):
        if figure.held:
            yield figure.name, figure.unit, figure.predicted, figure.measured, figure.deviation
    pairs = {
        "hit rate, of tokens": (predicted.token_hit_rate, measured.token_hit_rate),
        "hit rate, of requests": (predicted.request_hit_rate, measured.request_hit_rate),
        "share of tokens from the GPU": (_share(predicted, None), _share(measured, None)),
        "share of tokens from host": (_share(predicted, _HOST), _share(measured, _HOST)),
    }
    for name, (before, after) in pairs.items():
        deviation = 0.0 if before == after else (before - after) / after if after else float("inf")
        yield name, "share", before, after, deviation


def _share(result: SimulationResult, tier: TierName | None) -> float:
    blocks = result.gpu_blocks if tier is None else result.hit_blocks[tier]
    return float(blocks.sum()) * result.tokens_per_block / float(result.input_tokens.sum())
