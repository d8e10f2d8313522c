"""Mooncake's JSONL: `timestamp` in ms, `input_length`, `output_length`, `hash_ids` of 512 tokens each.

A row with `session_id` is one new turn: its lengths and ids count what the turn adds, and its prompt is what came before in
that session, the answers included, and then itself. `delay` (ms) counts from the end of the turn before. Where rows of a
session hold whole prompts instead, as Dynamo's tools write them, the format is `mooncake-whole`.

    {"timestamp": 27482, "input_length": 1955, "output_length": 52, "hash_ids": [46, 47, 2353, 2354]}
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tiercel.tune.traces.builder import TraceBuilder, as_names
from tiercel.tune.traces.format import Arrivals, ReadOptions, TraceFormat
from tiercel.tune.traces.formats.blocks import BlockChecker, BlockIds, FreshBlocks, Names
from tiercel.tune.traces.source import TOKENS_MAX, Seconds, Source, Tokens
from tiercel.tune.traces.trace import NO_REQUEST, Trace

TOKENS_PER_BLOCK = 512


class MooncakeRow(msgspec.Struct):
    """A line. Of a session's rows one may leave out `timestamp`."""

    input_length: Tokens
    hash_ids: BlockIds
    output_length: Tokens = 0
    timestamp: Seconds | None = None
    session_id: str | int | None = None
    delay: Seconds | None = None
    parent_chat_id: Any = msgspec.UNSET
    """Of another format's rows, whose times are in seconds and whose blocks have 16 tokens."""


class _Conversation(msgspec.Struct):
    """A session so far: its last request and what the next one's prompt begins with."""

    request: int
    arrival_s: float
    prompt_tokens: int
    answer_tokens: int
    names: Names


class _Reader:
    def __init__(self, source: Source, options: ReadOptions, *, whole: bool) -> None:
        size = options.tokens_per_block or TOKENS_PER_BLOCK
        self.builder = TraceBuilder(source.path.name, tokens_per_block=size)
        self.arrivals = Arrivals(options)
        self.checker = BlockChecker(source, size, key="hash_ids")
        self._source = source
        self._size = size
        self._is_whole = whole
        self._fresh = FreshBlocks()
        self._conversations: dict[str | int, _Conversation] = {}
        self._num_repeating = 0

    def add(self, line: int, row: MooncakeRow) -> None:
        if row.parent_chat_id is not msgspec.UNSET:
            reason = (
                "is of a row in Bailian's format, with seconds and blocks of 16 tokens; expected are timestamp in ms, "
                f"input_length, output_length and hash_ids of {self._size} tokens: keep each format in a file of its own, or "
                "name another --format"
            )
            raise self._source.wrong(line, reason, key="parent_chat_id", value=row.parent_chat_id)
        self.checker.check(line, row.hash_ids, row.input_length)
        arrival_s = self.arrivals.next() if row.timestamp is None and row.session_id is None else 0.0
        if row.timestamp is not None:
            arrival_s = row.timestamp / 1e3
        if row.session_id is not None:
            self._add_turn(line, row, as_names(row.hash_ids))
            return
        self.builder.add(
            row.hash_ids, arrival_s=arrival_s, input_tokens=row.input_length, output_tokens=row.output_length
        )

    def _add_turn(self, line: int, row: MooncakeRow, names: Names) -> None:
        assert row.session_id is not None
        before = self._conversations.get(row.session_id)
        tokens, after, delay_s = row.input_length, NO_REQUEST, 0.0
        if before is not None:
            full = before.names[: before.prompt_tokens // self._size]
            self._num_repeating += 0 < len(full) <= len(names) and bool((names[: len(full)] == full).all())
            if not self._is_whole:
                tokens += before.prompt_tokens + before.answer_tokens
                if tokens > TOKENS_MAX:
                    reason = f"comes with the turns before it to {tokens} tokens, more than any model takes; correct the rows"
                    raise self._source.wrong(line, reason, key="session_id", value=row.session_id)
                names = self._fresh.continued(before.names, before.prompt_tokens, tokens, self._size)
        if row.timestamp is not None and (before is None or row.delay is None):
            arrival_s = row.timestamp / 1e3
        elif before is None:
            arrival_s = self.arrivals.next()
        else:
            after, delay_s = before.request, (row.delay or 0.0) / 1e3
            arrival_s = before.arrival_s + delay_s
        request = self.builder.add(
            names,
            arrival_s=arrival_s,
            input_tokens=tokens,
            output_tokens=row.output_length,
            session=row.session_id,
            after=after,
            delay_s=delay_s,
        )
        self._conversations[row.session_id] = _Conversation(request, arrival_s, tokens, row.output_length, names)

    def notes(self) -> list[str]:
        notes = [*self.checker.notes(), *self.arrivals.note("requests and sessions"), *self.builder.out_of_order()]
        if self._conversations and not self._is_whole:
            notes.append(
                "a row with session_id was read as one new turn behind its session's earlier turns and answers; no two sessions "
                "were taken to share what comes after their first turn"
            )
            if self._num_repeating:
                notes.append(
                    f"{self._num_repeating} later turns begin with all the hash_ids of the turn before: if rows hold whole "
                    "prompts, as Dynamo's tools write them, give --format mooncake-whole"
                )
        return notes


def _read(source: Source, options: ReadOptions, *, whole: bool) -> Trace:
    reader = _Reader(source, options, whole=whole)
    for line, row in source.rows(MooncakeRow):
        reader.add(line, row)
    return reader.builder.build(notes=[*source.notes, *reader.notes()])


def read(source: Source, options: ReadOptions) -> Trace:
    """Read rows of a session as its new turns."""
    return _read(source, options, whole=False)


def read_whole(source: Source, options: ReadOptions) -> Trace:
    """Read rows of a session as whole prompts."""
    return _read(source, options, whole=True)


def write(trace: Trace, put: Callable[[bytes], object]) -> list[str]:
    """Write a row a request, without sessions: theirs would be read as turns that add to each other."""
    for request, path in enumerate(trace.paths()):
        row = {
            "timestamp": milliseconds(float(trace.arrivals_s[request])),
            "input_length": int(trace.input_tokens[request]),
            "output_length": int(trace.output_tokens[request]),
            "hash_ids": path.tolist(),
        }
        put(msgspec.json.encode(row) + b"\n")
    lost = []
    if trace.num_sessions:
        lost.append("which requests belong to one session")
    if trace.num_waiting:
        lost.append(
            f"that {trace.num_waiting} requests wait for another's end; each has the time of its arrival instead"
        )
    if trace.tokens_per_block != TOKENS_PER_BLOCK:
        lost.append(
            f"that hash_ids name blocks of {trace.tokens_per_block} tokens, not {TOKENS_PER_BLOCK}: tell its reader"
        )
    return lost


def milliseconds(seconds: float) -> int | float:
    """Return milliseconds to the nanosecond, as an integer where they are whole."""
    value = round(seconds * 1e3, 6)
    return int(value) if value.is_integer() else value


def _recognises(row: dict[str, Any]) -> bool:
    return "input_length" in row and "hash_ids" in row and "chat_id" not in row


MOONCAKE = TraceFormat(
    name="mooncake",
    about="Mooncake's JSONL; a row with session_id is one new turn",
    recognises=_recognises,
    read=read,
    write=write,
)
MOONCAKE_WHOLE = TraceFormat(
    name="mooncake-whole",
    about="the same, but a row with session_id holds its whole prompt",
    recognises=lambda row: False,
    read=read_whole,
)
