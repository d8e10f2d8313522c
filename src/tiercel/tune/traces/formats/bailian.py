"""Alibaba Bailian's JSONL: `chat_id`, `parent_chat_id` (-1 for none), `timestamp` in s, lengths, `hash_ids` of 16 tokens each.

{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132, "type": "text", "turn": 2,
 "hash_ids": [1089, 1090, 1091]}
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import ReadOptions, TraceFormat
from tiercel.tune.traces.formats.blocks import BlockChecker, BlockIds
from tiercel.tune.traces.source import Seconds, Source, Tokens
from tiercel.tune.traces.trace import NO_SESSION, Trace

TOKENS_PER_BLOCK = 16
NO_CHAT = -1


class BailianRow(msgspec.Struct):
    """A line."""

    chat_id: int | str
    parent_chat_id: int | str
    timestamp: Seconds
    input_length: Tokens
    hash_ids: BlockIds
    output_length: Tokens = 0


def read(source: Source, options: ReadOptions) -> Trace:
    """Read a file; a session is a chat and all that descend from it."""
    size = options.tokens_per_block or TOKENS_PER_BLOCK
    builder = TraceBuilder(source.path.name, tokens_per_block=size)
    checker = BlockChecker(source, size, key="hash_ids")
    roots: dict[int | str, int | str] = {}
    num_orphans = 0
    for line, row in source.rows(BailianRow):
        is_root = row.parent_chat_id == NO_CHAT
        num_orphans += not is_root and row.parent_chat_id not in roots
        root = row.chat_id if is_root else roots.setdefault(row.parent_chat_id, row.parent_chat_id)
        roots[row.chat_id] = root
        checker.check(line, row.hash_ids, row.input_length)
        builder.add(
            row.hash_ids,
            arrival_s=row.timestamp,
            input_tokens=row.input_length,
            output_tokens=row.output_length,
            session=root,
        )
    notes = [*source.notes, *checker.notes(), *builder.out_of_order()]
    if num_orphans:
        notes.append(f"{num_orphans} chats continue one that stands nowhere before them; their sessions begin there")
    return builder.build(notes=notes)


def write(trace: Trace, put: Callable[[bytes], object]) -> list[str]:
    """Write a row a request, whose parent is the request before it in its session."""
    last_of: dict[int, tuple[int, int]] = {}  # session -> its last chat, its turns
    for request, path in enumerate(trace.paths()):
        session = int(trace.sessions[request])
        parent, turns = last_of.get(session, (NO_CHAT, 0)) if session != NO_SESSION else (NO_CHAT, 0)
        last_of[session] = (request, turns + 1)
        row = {
            "chat_id": request,
            "parent_chat_id": parent,
            "timestamp": round(float(trace.arrivals_s[request]), 9),
            "input_length": int(trace.input_tokens[request]),
            "output_length": int(trace.output_tokens[request]),
            "type": "text",
            "turn": turns + 1,
            "hash_ids": path.tolist(),
        }
        put(msgspec.json.encode(row) + b"\n")
    lost = []
    if num_alone := int((trace.sessions == NO_SESSION).sum()):
        lost.append(f"that {num_alone} requests are of no session; each begins a chat of its own")
    if trace.num_waiting:
        lost.append(
            f"that {trace.num_waiting} requests wait for another's end; each has the time of its arrival instead"
        )
    if trace.tokens_per_block != TOKENS_PER_BLOCK:
        lost.append(
            f"that hash_ids name blocks of {trace.tokens_per_block} tokens, not {TOKENS_PER_BLOCK}: tell its reader"
        )
    return lost


def _recognises(row: dict[str, Any]) -> bool:
    return "chat_id" in row and "parent_chat_id" in row


BAILIAN = TraceFormat(
    name="bailian", about="Alibaba Bailian's JSONL with chats", recognises=_recognises, read=read, write=write
)
