"""Traces of lengths and times alone, as CSV: BurstGPT and Azure. What their prompts share is not known.

    Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type     BurstGPT, seconds
    TIMESTAMP,ContextTokens,GeneratedTokens                                                         Azure, dates or seconds

Every prompt has blocks of its own, so that it takes room in a cache as it would. BurstGPT's newer files name sessions: a turn
whose prompt is at least as long as the prompt and answer before it is taken to begin with both; any other begins anew.
"""

from typing import Any

import msgspec

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import TOKENS_PER_BLOCK, ReadOptions, TraceFormat
from tiercel.tune.traces.formats.blocks import NO_NAMES, FreshBlocks, Names
from tiercel.tune.traces.source import Source
from tiercel.tune.traces.trace import Trace

AZURE_COLUMNS = {"time": "TIMESTAMP", "prompt": "ContextTokens", "answer": "GeneratedTokens"}
BURSTGPT_COLUMNS = {
    "time": "Timestamp",
    "session": "Session ID",
    "model": "Model",
    "prompt": "Request tokens",
    "answer": "Response tokens",
}


class _Turn(msgspec.Struct):
    """A session's last turn."""

    prompt_tokens: int
    answer_tokens: int
    names: Names


def read_azure(source: Source, options: ReadOptions) -> Trace:
    """Read Azure's CSV."""
    size = options.tokens_per_block or TOKENS_PER_BLOCK
    builder, fresh = TraceBuilder(source.path.name, tokens_per_block=size), FreshBlocks()
    for line, row in source.table(AZURE_COLUMNS):
        prompt = source.count(line, AZURE_COLUMNS["prompt"], row["prompt"])
        builder.add(
            fresh.take(-(-prompt // size)),
            arrival_s=source.time(line, AZURE_COLUMNS["time"], row["time"]),
            input_tokens=prompt,
            output_tokens=source.count(line, AZURE_COLUMNS["answer"], row["answer"]),
        )
    notes = [
        *source.notes,
        *builder.out_of_order(),
        "the file does not say what prompts share: none was taken to share",
    ]
    return builder.build(notes=notes)


def read_burstgpt(source: Source, options: ReadOptions) -> Trace:
    """Read BurstGPT's CSV."""
    size = options.tokens_per_block or TOKENS_PER_BLOCK
    builder, fresh = TraceBuilder(source.path.name, tokens_per_block=size), FreshBlocks()
    turns: dict[str, _Turn] = {}
    num_grown = num_anew = 0
    for line, row in source.table(BURSTGPT_COLUMNS, ("session", "model")):
        prompt = source.count(line, BURSTGPT_COLUMNS["prompt"], row["prompt"])
        answer = source.count(line, BURSTGPT_COLUMNS["answer"], row["answer"])
        session = row.get("session", "")
        before = turns.get(session, _Turn(0, 0, NO_NAMES))
        grows = bool(session) and prompt >= before.prompt_tokens + before.answer_tokens
        names = fresh.continued(before.names, before.prompt_tokens if grows else 0, prompt, size)
        if session:
            num_grown += grows and session in turns
            num_anew += not grows
            turns[session] = _Turn(prompt, answer, names)
        builder.add(
            names,
            arrival_s=source.time(line, BURSTGPT_COLUMNS["time"], row["time"]),
            input_tokens=prompt,
            output_tokens=answer,
            session=session or None,
            scope=row.get("model", ""),
        )
    notes = [*source.notes, *builder.out_of_order()]
    notes.append("the file does not say what prompts of different sessions share: none was taken to share")
    if turns:
        notes.append(
            f"{num_grown} turns whose prompt is at least as long as their session's prompt and answer before were taken to begin "
            f"with both; {num_anew} shorter ones to begin anew"
        )
    return builder.build(notes=notes)


def _has(columns: dict[str, str], *keys: str) -> Any:
    return lambda row: all(columns[key] in row for key in keys)


AZURE = TraceFormat(
    name="azure",
    about="Azure's CSV of times and lengths",
    recognises=_has(AZURE_COLUMNS, "time", "prompt", "answer"),
    read=read_azure,
)
BURSTGPT = TraceFormat(
    name="burstgpt",
    about="BurstGPT's CSV of times, lengths and sessions",
    recognises=_has(BURSTGPT_COLUMNS, "time", "prompt", "answer"),
    read=read_burstgpt,
)
