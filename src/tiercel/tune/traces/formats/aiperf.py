"""AIPerf's files: `inputs.json`, the prompts of a run, and `profile_export.jsonl`, when each was sent and how long it was.

`inputs.json` has no times. `profile_export.jsonl` has no prompts: where an `inputs.json` lies beside it, as AIPerf leaves them,
both are read together, and without it no two requests share a block. Warm-up requests and those that failed are left out.
"""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import Arrivals, ReadOptions, TraceFormat
from tiercel.tune.traces.formats.blocks import FreshBlocks, Names
from tiercel.tune.traces.formats.prompts import BodyError, PromptReader
from tiercel.tune.traces.source import TOKENS_MAX, Source
from tiercel.tune.traces.trace import NO_REQUEST, NO_SESSION, Trace

INPUTS_FILE = "inputs.json"
EXPORT_FILE = "profile_export.jsonl"
WARMUP = "warmup"


Nanoseconds = Annotated[int, msgspec.Meta(ge=0)]


class AiperfSession(msgspec.Struct):
    """A conversation of `inputs.json`: the request body of each turn."""

    session_id: str
    payloads: list[dict[str, Any]]


class AiperfInputs(msgspec.Struct):
    """`inputs.json`."""

    data: list[AiperfSession]


class AiperfMetadata(msgspec.Struct):
    """When a request was made, in ns since the epoch, and for which turn of which conversation."""

    request_start_ns: Nanoseconds
    request_end_ns: Nanoseconds
    conversation_id: str | None = None
    x_correlation_id: str | None = None
    turn_index: int = 0
    benchmark_phase: str = ""


class AiperfMetric(msgspec.Struct):
    """A figure."""

    value: float | list[float] | str | bool | None = None


class AiperfRecord(msgspec.Struct):
    """A line of `profile_export.jsonl`."""

    metadata: AiperfMetadata
    metrics: dict[str, AiperfMetric]
    error: dict[str, Any] | None = None

    def tokens(self, metric: str) -> int | None:
        """Return a metric that counts tokens."""
        found = self.metrics.get(metric)
        value = found.value if found is not None else None
        return int(value) if isinstance(value, int | float) and value >= 0 else None


def read_inputs(source: Source, options: ReadOptions) -> Trace:
    """Read `inputs.json`; a turn waits for the one before it in its session."""
    source.is_private = True
    prompts, arrivals = PromptReader(options), Arrivals(options)
    builder = TraceBuilder(source.path.name, tokens_per_block=prompts.tokens_per_block)
    for session in source.document(AiperfInputs).data:
        after, arrival_s = NO_REQUEST, arrivals.next()
        for turn, body in enumerate(session.payloads):
            names, num_tokens = _prompt(source, prompts, session.session_id, turn, body)
            after = builder.add(
                names,
                arrival_s=arrival_s,
                input_tokens=num_tokens,
                output_tokens=prompts.answer_tokens(body, body),
                session=session.session_id,
                after=after,
                scope=str(body.get("model", "")),
            )
    notes = [*source.notes, *prompts.notes(), *arrivals.note("sessions")]
    notes.append("each payload was taken as a whole prompt, sent when the turn before it had ended")
    return builder.build(notes=notes)


def read_export(source: Source, options: ReadOptions) -> Trace:
    """Read `profile_export.jsonl`, with the prompts of an `inputs.json` beside it."""
    prompts, fresh = PromptReader(options), FreshBlocks()
    bodies = _bodies(source)
    builder = TraceBuilder(source.path.name, tokens_per_block=prompts.tokens_per_block)
    last_of: dict[str, tuple[int, float]] = {}
    num_left_out = num_without_prompt = 0
    for line, record in source.rows(AiperfRecord):
        about = record.metadata
        num_tokens = record.tokens("input_sequence_length")
        if about.benchmark_phase == WARMUP or record.error is not None or num_tokens is None:
            num_left_out += 1
            continue
        num_answered = record.tokens("output_sequence_length") or 0
        if max(num_tokens, num_answered) > TOKENS_MAX:
            raise source.wrong(line, f"has more than {TOKENS_MAX} tokens; remove the row")
        names: Names | None = None
        body = bodies.get((about.conversation_id, about.turn_index))
        if body is not None:
            names, num_tokens = _prompt(source, prompts, str(about.conversation_id), about.turn_index, body)
        num_without_prompt += names is None
        session: Hashable = about.x_correlation_id or about.conversation_id
        start_s, end_s = about.request_start_ns / 1e9, about.request_end_ns / 1e9
        before = last_of.get(str(session)) if about.turn_index else None
        number = builder.add(
            fresh.take(-(-num_tokens // prompts.tokens_per_block)) if names is None else names,
            arrival_s=start_s,
            input_tokens=num_tokens,
            output_tokens=num_answered,
            session=session,
            after=NO_REQUEST if before is None else before[0],
            delay_s=0.0 if before is None else max(0.0, start_s - before[1]),
            scope=str(body.get("model", "")) if body is not None else None,
        )
        last_of[str(session)] = (number, end_s)
    notes = [*source.notes, *prompts.notes()]
    if num_left_out:
        notes.append(f"{num_left_out} requests of the warm-up, or failed, or cancelled, were left out")
    if num_without_prompt:
        notes.append(
            f"what {num_without_prompt} requests share is not known: no {INPUTS_FILE} beside the file has their prompts"
        )
    return builder.build(notes=notes)


def write_inputs(trace: Trace, put: Callable[[bytes], object]) -> list[str]:
    """Write `inputs.json` of completions whose prompts are tokens, equal where the trace's blocks are."""
    sessions: dict[int, list[int]] = {}
    for request, session in enumerate(trace.sessions.tolist()):
        sessions.setdefault(session if session != NO_SESSION else -2 - request, []).append(request)
    put(b'{"data": [')
    for number, requests in enumerate(sessions.values()):
        put(b",\n" if number else b"\n")
        payloads = [_payload(trace, request) for request in requests]
        put(msgspec.json.encode({"session_id": str(number), "payloads": payloads}))
    put(b"\n]}\n")
    return [
        "when requests arrive, and the pauses between a session's",
        "the block size: the tokens are made up, equal where blocks are, and read in blocks of any size",
    ]


def _payload(trace: Trace, request: int) -> dict[str, Any]:
    return {"prompt": trace.tokens(request).tolist(), "max_tokens": int(trace.output_tokens[request])}


def _bodies(source: Source) -> dict[tuple[str | None, int], dict[str, Any]]:
    """Return the request bodies of the `inputs.json` beside an export, by conversation and turn; none without one."""
    path: Path = source.path.with_name(INPUTS_FILE)
    if not path.exists():
        return {}
    inputs = Source(path, source.format, is_private=True).document(AiperfInputs)
    source.notes.append(f"the prompts were read from {path}, and their tokens counted anew")
    return {(session.session_id, turn): body for session in inputs.data for turn, body in enumerate(session.payloads)}


def _prompt(source: Source, prompts: PromptReader, session: str, turn: int, body: dict[str, Any]) -> tuple[Names, int]:
    try:
        ((names, num_tokens),) = prompts.prompts(body)
    except (BodyError, ValueError) as error:
        reason = f"has a payload {turn} that is no single chat or prompt ({error}); correct or remove it"
        raise source.wrong(None, reason, key="session_id", value=session) from error
    return names, num_tokens


def _recognises_inputs(row: dict[str, Any]) -> bool:
    data = row.get("data")
    return isinstance(data, list) and (not data or (isinstance(data[0], dict) and "payloads" in data[0]))


AIPERF_INPUTS = TraceFormat(
    name="aiperf-inputs",
    about="AIPerf's inputs.json",
    recognises=_recognises_inputs,
    read=read_inputs,
    write=write_inputs,
)
AIPERF_EXPORT = TraceFormat(
    name="aiperf-export",
    about="AIPerf's profile_export.jsonl, with an inputs.json beside it",
    recognises=lambda row: isinstance(row.get("metadata"), dict) and isinstance(row.get("metrics"), dict),
    read=read_export,
)
