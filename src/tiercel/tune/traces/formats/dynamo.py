"""Dynamo's request traces, `dynamo.request.trace.v1`: JSONL of records, each bare or as the `event` of its sink's envelope.

    {"schema": "dynamo.request.trace.v1", "event_type": "request_end", "event_time_unix_ms": 1010,
     "agent_context": {"session_id": "a", "parent_session_id": "b"},
     "request": {"request_id": "r", "model": "m", "request_received_ms": 1000, "total_time_ms": 10.0, "output_tokens": 4,
                 "replay": {"trace_block_size": 64, "input_length": 128, "input_sequence_hashes": [101, 102]}}}

Only `request_end` says what a request was; payloads and tool events are passed over. Hashes chain over what precedes them.
Requests with an `agent_context` wait for each other as their sessions did, children together with their parents.
"""

from collections import defaultdict
from typing import Annotated, Any

import msgspec

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import TOKENS_PER_BLOCK, TOKENS_PER_BLOCK_MAX, ReadOptions, TraceFormat
from tiercel.tune.traces.formats.blocks import BlockChecker, BlockIds
from tiercel.tune.traces.formats.causes import TimedRequest, causes
from tiercel.tune.traces.source import Seconds, Source, Tokens
from tiercel.tune.traces.trace import Trace

SCHEMA = "dynamo.request.trace.v1"
REQUEST_END = "request_end"


class DynamoReplay(msgspec.Struct):
    """A request's blocks."""

    trace_block_size: Annotated[int, msgspec.Meta(ge=1, le=TOKENS_PER_BLOCK_MAX)]
    input_length: Tokens
    input_sequence_hashes: BlockIds


class DynamoRequest(msgspec.Struct):
    """What a `request_end` says."""

    request_received_ms: Seconds | None = None
    total_time_ms: Seconds | None = None
    model: str | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    replay: DynamoReplay | None = None


class DynamoContext(msgspec.Struct):
    """Which agent asked."""

    session_id: str
    parent_session_id: str | None = None


class DynamoRecord(msgspec.Struct):
    """A record, or the envelope of one."""

    schema: str = ""
    event_type: str = ""
    event_time_unix_ms: Seconds | None = None
    agent_context: DynamoContext | None = None
    request: DynamoRequest | None = None
    event: "DynamoRecord | None" = None


class _Reader:
    def __init__(self, source: Source, options: ReadOptions) -> None:
        self.source = source
        self._size = options.tokens_per_block or 0
        self._builder = TraceBuilder(source.path.name, tokens_per_block=self._size or TOKENS_PER_BLOCK)
        self._timed: dict[str, list[TimedRequest]] = defaultdict(list)
        self._parents: dict[str, str | None] = {}
        self._streams: dict[str, int] = {}
        self._num_without_blocks = self._num_other = 0

    def add(self, line: int, record: DynamoRecord) -> None:
        if record.schema != SCHEMA:
            raise self.source.wrong(line, f"must be {SCHEMA}", key="schema", value=record.schema)
        request = record.request
        if record.event_type != REQUEST_END or request is None:
            self._num_other += 1
            return
        start_ms, end_ms = self._times(line, record, request)
        replay = request.replay
        tokens = replay.input_length if replay is not None else request.input_tokens
        if tokens is None:
            raise self.source.wrong(line, "has neither request.replay nor request.input_tokens; remove the row")
        self._num_without_blocks += replay is None
        context = record.agent_context
        number = self._builder.add(
            [] if replay is None else self._names(line, replay),
            arrival_s=start_ms / 1e3,
            input_tokens=tokens,
            output_tokens=request.output_tokens or 0,
            session=context.session_id if context is not None else None,
            scope=request.model,
        )
        if context is not None:
            self._parents[context.session_id] = context.parent_session_id
            stream = self._streams.setdefault(context.session_id, len(self._streams))
            timed = TimedRequest(number=number, start_s=start_ms / 1e3, end_s=end_ms / 1e3, stream=stream)
            self._timed[context.session_id].append(timed)

    def build(self) -> Trace:
        families: dict[str, list[TimedRequest]] = defaultdict(list)
        for session, timed in self._timed.items():
            families[self._root(session)] += timed
        for family in families.values():
            for number, after, delay_s in causes(family):
                self._builder.follow(number, after, delay_s)
        notes = [*self.source.notes]
        if self._num_other:
            notes.append(f"{self._num_other} records of payloads and tools were passed over")
        if self._num_without_blocks:
            notes.append(f"{self._num_without_blocks} requests have no `replay`: what they share is not known")
        if families:
            notes.append(
                "each request of an agent was taken to wait for the one of its session, parents and children included, that "
                "ended last before it began, with the recorded pause"
            )
        return self._builder.build(notes=notes)

    def _times(self, line: int, record: DynamoRecord, request: DynamoRequest) -> tuple[float, float]:
        """When a request came and ended, in ms, as far as the record says."""
        start, end, took = request.request_received_ms, record.event_time_unix_ms, request.total_time_ms
        if start is None and end is not None:
            start = max(0.0, end - (took or 0.0))
        if start is None:
            raise self.source.wrong(
                line, "has neither request.request_received_ms nor event_time_unix_ms; remove the row"
            )
        if end is None:
            end = start + (took or 0.0)
        return start, max(start, end)

    def _names(self, line: int, replay: DynamoReplay) -> list[int]:
        if self._size not in (0, replay.trace_block_size):
            reason = f"must be {self._size} as before; read records of one block size at a time"
            key = "request.replay.trace_block_size"
            raise self.source.wrong(line, reason, key=key, value=replay.trace_block_size)
        self._size = self._builder.tokens_per_block = replay.trace_block_size
        checker = BlockChecker(self.source, self._size, key="request.replay.input_sequence_hashes")
        checker.check(line, replay.input_sequence_hashes, replay.input_length)
        return replay.input_sequence_hashes

    def _root(self, session: str) -> str:
        seen = {session}
        while (parent := self._parents.get(session)) is not None and parent not in seen:
            seen.add(parent)
            session = parent
        return session


def read(source: Source, options: ReadOptions) -> Trace:
    """Read one file of records."""
    reader = _Reader(source, options)
    for line, record in source.rows(DynamoRecord):
        reader.add(line, record.event or record)
    return reader.build()


def _recognises(row: dict[str, Any]) -> bool:
    event = row.get("event")
    return row.get("schema") == SCHEMA or (isinstance(event, dict) and event.get("schema") == SCHEMA)


DYNAMO = TraceFormat(name="dynamo", about="Dynamo's request traces", recognises=_recognises, read=read)
