"""WEKA's recordings of coding agents: a JSON object a session, in a file each, several in a JSONL file, or a folder of both.

A session has `block_size` (64), `hash_id_scope` (local: its ids mean nothing outside it; or global) and `requests`: each with
`t` in seconds since the session began, `in` and `out` tokens, `hash_ids` of full blocks and `api_time`, or of type "subagent"
with `requests` of its own, on the same clock. Sessions have no time of their own and some were recorded several times: arrivals
are drawn, and a session with the same requests as an earlier one is left out.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import TOKENS_PER_BLOCK_MAX, Arrivals, ReadOptions, TraceFormat
from tiercel.tune.traces.formats.blocks import BlockChecker, BlockIds
from tiercel.tune.traces.formats.causes import TimedRequest, causes
from tiercel.tune.traces.source import Seconds, Source, Tokens, json_fault
from tiercel.tune.traces.trace import Trace

SECONDS_PER_SESSION = 120.0
"""Mean time between the beginnings of two sessions, unless arrivals_per_s says otherwise."""
SUBAGENT = "subagent"
_ROOT = 0


class WekaRequest(msgspec.Struct, rename={"input_tokens": "in", "output_tokens": "out", "kind": "type"}):
    """A request, or a sub-agent with its own."""

    t: Seconds
    kind: str = ""
    model: str = ""
    input_tokens: Tokens | None = None
    output_tokens: Tokens = 0
    hash_ids: BlockIds = []
    api_time: Seconds | None = None
    requests: "list[WekaRequest]" = []


class WekaSession(msgspec.Struct):
    """A session of an agent and its sub-agents."""

    requests: list[WekaRequest]
    id: str | int = ""
    block_size: Annotated[int, msgspec.Meta(ge=1, le=TOKENS_PER_BLOCK_MAX)] = 64
    hash_id_scope: Literal["local", "global"] = "local"


class WekaReader:
    """Puts sessions of one or several files together."""

    def __init__(self, name: str, options: ReadOptions) -> None:
        self._name = name
        self._options = options
        self._builder: TraceBuilder | None = None
        self._block_size = 0
        self._arrivals = Arrivals(options, 1 / SECONDS_PER_SESSION)
        self._digests: set[bytes] = set()
        self._notes: list[str] = []
        self._num_repeated = self._num_sessions = 0

    def read(self, source: Source) -> None:
        """Add what a file holds. Raises FormatError."""
        for line, session in _sessions(source):
            self._add(source, line, session)
        self._notes += source.notes

    def build(self) -> Trace:
        """Return the trace of all sessions that were read."""
        builder = self._builder or TraceBuilder(self._name, tokens_per_block=self._options.tokens_per_block or 64)
        notes = [*dict.fromkeys(self._notes), *self._arrivals.note("sessions")]
        if self._num_repeated:
            notes.append(f"{self._num_repeated} sessions had the same requests as an earlier one and were left out")
        notes.append(
            "each request was taken to wait for the one of its session that ended last before it began, with the recorded pause"
        )
        return builder.build(notes=notes)

    def _add(self, source: Source, line: int | None, session: WekaSession) -> None:
        builder = self._builder_for(source, line, session)
        digest = _digest(source, line, session)
        if digest in self._digests:
            self._num_repeated += 1
            return
        self._digests.add(digest)
        self._num_sessions += 1
        start_s = self._arrivals.next()
        scope = None if session.hash_id_scope == "global" else self._num_sessions
        checker = BlockChecker(source, self._block_size, key="hash_ids")
        timed = []
        for stream, request in _streams(session.requests):
            if request.input_tokens is None:
                raise source.wrong(
                    line, "a request has no `in`; correct or remove the session", key="session", value=session.id
                )
            checker.check(line, request.hash_ids, request.input_tokens)
            number = builder.add(
                request.hash_ids,
                arrival_s=start_s + request.t,
                input_tokens=request.input_tokens,
                output_tokens=request.output_tokens,
                session=(self._num_sessions, stream),
                scope=(scope, request.model),
            )
            end_s = request.t + (request.api_time or 0.0)
            timed.append(TimedRequest(number=number, start_s=request.t, end_s=end_s, stream=stream))
        for number, after, delay_s in causes(timed):
            builder.follow(number, after, delay_s)
        self._notes += checker.notes()

    def _builder_for(self, source: Source, line: int | None, session: WekaSession) -> TraceBuilder:
        size = self._options.tokens_per_block or session.block_size
        if self._builder is None:
            self._builder, self._block_size = TraceBuilder(self._name, tokens_per_block=size), size
        if size != self._block_size:
            reason = f"must be {self._block_size} as in the sessions before; read sessions of one block size at a time"
            raise source.wrong(line, reason, key="block_size", value=size)
        return self._builder


def read(source: Source, options: ReadOptions) -> Trace:
    """Read one file."""
    reader = WekaReader(source.path.name, options)
    reader.read(source)
    return reader.build()


def read_folder(sources: Sequence[Source], name: str, options: ReadOptions) -> Trace:
    """Read the sessions of several files, in the order of the files."""
    reader = WekaReader(name, options)
    for source in sources:
        reader.read(source)
    return reader.build()


def _sessions(source: Source) -> Iterator[tuple[int | None, WekaSession]]:
    """Yield a JSONL file's sessions by line, or the one that a file of several lines is."""
    if is_document(source):
        yield None, source.document(WekaSession)
    else:
        yield from source.rows(WekaSession)


def is_document(source: Source) -> bool:
    """Say whether the file's first line is only the beginning of a JSON value."""
    return json_fault(source.head().split(b"\n", 1)[0]) is not None


def _digest(source: Source, line: int | None, session: WekaSession) -> bytes:
    """Name a session by what it asked, so that it is known again."""
    try:
        return blake2b(msgspec.msgpack.encode(session.requests), digest_size=16).digest()
    except OverflowError as error:
        reason = "has a hash id of more than 64 bits; correct or remove it"
        raise source.wrong(line, reason, key="session", value=session.id) from error


def _streams(requests: Sequence[WekaRequest]) -> Iterator[tuple[int, WekaRequest]]:
    """Yield all requests, each with the number of the agent that made it: 0, then the sub-agents as they stand in the file."""
    num_streams = _ROOT + 1
    stack = [(_ROOT, iter(requests))]
    while stack:
        stream, rest = stack[-1]
        request = next(rest, None)
        if request is None:
            stack.pop()
        elif request.kind == SUBAGENT:
            stack.append((num_streams, iter(request.requests)))
            num_streams += 1
        else:
            yield stream, request


def _recognises(row: dict[str, Any]) -> bool:
    return isinstance(row.get("requests"), list) and ("block_size" in row or "hash_id_scope" in row)


WEKA = TraceFormat(
    name="weka", about="WEKA's agent sessions: JSON, JSONL or a folder of them", recognises=_recognises, read=read
)
