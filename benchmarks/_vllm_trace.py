"""A trace as requests that a real engine takes: those that fit, with token ids in place of the blocks that it names."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _vllm_engine import Job
from _vllm_scale import Scale

from tiercel.tune.traces import NO_REQUEST, Trace, read_trace

FIRST_TOKEN = 10
"""Ids below have a meaning of their own in many vocabularies."""

_FIELDS = ("leaves", "arrivals_s", "input_tokens", "output_tokens", "sessions", "after", "delays_s")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What of a trace is replayed.

    Attributes:
        trace: The requests, prompts and answers as long as the engine gets them.
        num_dropped: Requests that were left out on the way, their prompts being longer than the engine takes.
        first_dropped_tokens: Prompt tokens of those, for the record.
    """

    trace: Trace
    num_dropped: int
    dropped_tokens: tuple[int, ...]


def choose_requests(path: Path, scale: Scale, *, count: int, output_tokens: int, shrink: int) -> Chosen:
    """Take the first requests that fit into the engine.

    Args:
        count: How many.
        output_tokens: What each generates.
        shrink: Blocks of the trace, and prompts with them, become this many times shorter: 1 for an engine of full size.

    Raises:
        ValueError: Requests wait for each other, which engines here do not do.
    """
    trace = read_trace(path)
    if np.any(trace.after != NO_REQUEST):
        raise ValueError(f"{path}: requests wait for others; give a trace whose requests arrive by themselves")
    input_tokens = np.maximum(1, trace.input_tokens // shrink)
    fits = input_tokens + output_tokens <= scale.max_model_tokens
    numbers = np.flatnonzero(fits)[:count]
    dropped = np.flatnonzero(~fits[: numbers[-1] + 1]) if len(numbers) else np.empty(0, np.int64)
    trace = replace(
        trace,
        tokens_per_block=trace.tokens_per_block // shrink,
        input_tokens=input_tokens,
        output_tokens=np.full(trace.num_requests, output_tokens, np.int64),
    )
    return Chosen(
        trace=_take(trace, numbers),
        num_dropped=len(dropped),
        dropped_tokens=tuple(int(tokens) for tokens in input_tokens[dropped]),
    )


def first(trace: Trace, count: int) -> Trace:
    """The first requests of a trace."""
    return _take(trace, np.arange(min(count, trace.num_requests)))


def job_of(trace: Trace, request: int, scale: Scale) -> Job:
    """A request for the engine: each token's id is drawn from its block's number and its place, and nothing else.

    So two prompts share exactly the tokens that they share for the simulator.
    """
    blocks = trace.tokens(request).astype(np.uint64)
    places = np.arange(len(blocks), dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = (blocks + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ places * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    num_ids = np.uint64(scale.shape.vocab_size - 2 * FIRST_TOKEN)
    prompt: list[int] = ((mixed >> np.uint64(32)) % num_ids + np.uint64(FIRST_TOKEN)).tolist()
    return Job(prompt=prompt, max_tokens=int(trace.output_tokens[request]))


def _take(trace: Trace, numbers: np.ndarray) -> Trace:
    taken = {name: getattr(trace, name)[numbers] for name in _FIELDS}
    if len(numbers):
        taken["arrivals_s"] = taken["arrivals_s"] - taken["arrivals_s"][0]
    return replace(trace, **taken)
