"""A trace as requests that a real engine takes: those that fit, with token ids in place of the blocks that it names."""

from collections import Counter
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
        num_dropped: Requests of the window that were left out, their prompts being longer than the engine takes.
    """

    trace: Trace
    num_dropped: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which requests are taken.

    Attributes:
        window: The first so many that fit into the engine, and of these
        turns_min: those of conversations that come up so often among them. Two requests are of one conversation if they share the
            trace's second block: the first one is the same system prompt for most. What is left is a sample by
            conversation, in which prompts come again while an engine of minutes still has them.
        output_tokens: What each generates.
        shrink: Blocks of the trace, and prompts with them, become this many times shorter: 1 for an engine of full size.
    """

    window: int
    turns_min: int
    output_tokens: int
    shrink: int = 1


def choose_requests(path: Path, scale: Scale, choice: Choice) -> Chosen:
    """Take requests out of a trace's beginning.

    Raises:
        ValueError: Requests wait for each other, which engines here do not do.
    """
    trace = read_trace(path)
    if np.any(trace.after != NO_REQUEST):
        raise ValueError(f"{path}: requests wait for others; give a trace whose requests arrive by themselves")
    input_tokens = np.maximum(1, trace.input_tokens // choice.shrink)
    fits = input_tokens + choice.output_tokens <= scale.max_model_tokens
    numbers = np.flatnonzero(fits)[: choice.window]
    num_dropped = int(np.count_nonzero(~fits[: numbers[-1] + 1])) if len(numbers) else 0
    trace = replace(
        trace,
        tokens_per_block=trace.tokens_per_block // choice.shrink,
        input_tokens=input_tokens,
        output_tokens=np.full(trace.num_requests, choice.output_tokens, np.int64),
    )
    return Chosen(
        trace=_take(trace, numbers[_often(trace, numbers, choice.turns_min)]),
        num_dropped=num_dropped,
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


def _often(trace: Trace, numbers: np.ndarray, turns_min: int) -> list[int]:
    """Places of those requests whose conversation comes up often enough."""
    conversations = []
    for number in numbers.tolist():
        path = trace.path(number)
        conversations.append(int(path[min(1, len(path) - 1)]) if len(path) else -number - 1)
    counts = Counter(conversations)
    return [place for place, conversation in enumerate(conversations) if counts[conversation] >= turns_min]


def _take(trace: Trace, numbers: np.ndarray) -> Trace:
    taken = {name: getattr(trace, name)[numbers] for name in _FIELDS}
    if len(numbers):
        taken["arrivals_s"] = taken["arrivals_s"] - taken["arrivals_s"][0]
    return replace(trace, **taken)
