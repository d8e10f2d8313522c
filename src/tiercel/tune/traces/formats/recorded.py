"""Recordings that a cache made of its own lookups (`record_path`): every lookup is a request.

A recording may hold several sessions of a cache, one behind the other, whatever their times say: a clock that was set back
between two does not mix them. Theirs must have one block size. It does not say how long answers were.
"""

import math
from datetime import UTC, datetime

from tiercel.errors import FormatError
from tiercel.telemetry.recording import MAGIC, GapRecord, RecordedLookup, SessionRecord, Tail, read_recording
from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import TOKENS_PER_BLOCK, ReadOptions, TraceFormat
from tiercel.tune.traces.source import Source
from tiercel.tune.traces.trace import Trace

RECORDING_MAGIC = MAGIC[:-1]
"""What recordings of any version begin with."""


def read(source: Source, options: ReadOptions) -> Trace:
    """Read a recording."""
    builder = TraceBuilder(source.path.name, tokens_per_block=options.tokens_per_block or TOKENS_PER_BLOCK)
    tail, missing, num_set_back = Tail(), 0, 0
    started_at = last_s = -math.inf
    sessions: list[SessionRecord] = []
    for event in read_recording(source.path, tail):
        if isinstance(event, SessionRecord):
            sessions.append(event)
            _check(source, sessions, options)
            builder.tokens_per_block = event.about.tokens_per_block
            num_set_back += event.started_at < last_s
            started_at = max(event.started_at, last_s)
        elif isinstance(event, GapRecord):
            missing += event.num_events
        elif isinstance(event, RecordedLookup):
            arrival_s = started_at + event.time_s
            last_s = max(last_s, arrival_s)
            builder.add(event.keys, arrival_s=arrival_s, input_tokens=event.num_tokens)
    notes = [*source.notes, *builder.out_of_order(), "a recording does not say how long answers were: 0 was taken"]
    if len(sessions) > 1:
        notes.append(f"{len(sessions)} sessions of the cache follow each other")
    if num_set_back:
        notes.append(
            f"of {num_set_back} of the sessions the clock says that they begin before the end of the one in front of them, as "
            "it was set back; each was taken to begin at that end"
        )
    if missing:
        notes.append(f"{missing} events are missing, because the recorder fell behind")
    if tail.torn_bytes:
        notes.append(f"the last {tail.torn_bytes} bytes are torn or damaged and were left out")
    older = source.path.with_name(source.path.name + ".1")
    if older.exists():
        notes.append(f"what was recorded before it lies in {older} and was not read")
    return builder.build(notes=notes)


def _check(source: Source, sessions: list[SessionRecord], options: ReadOptions) -> None:
    """Refuse a session of another block size than the first one's, or than was asked for."""
    now, first = sessions[-1], sessions[0]
    wanted = options.tokens_per_block or first.about.tokens_per_block
    if now.about.tokens_per_block != wanted:
        when = datetime.fromtimestamp(now.started_at, UTC).isoformat(sep=" ", timespec="seconds")
        raise FormatError(
            f"{source.path}: the session of {when} UTC has blocks of {now.about.tokens_per_block} tokens, not {wanted}: record "
            "each block size to a file of its own, or read it without --tokens-per-block and convert"
        )


RECORDING = TraceFormat(
    name="recording", about="a cache's own recording (record_path)", recognises=lambda row: False, read=read
)
