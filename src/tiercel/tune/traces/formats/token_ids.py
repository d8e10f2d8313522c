"""JSONL of token ids: `tokens`, `prompt_token_ids`, `token_ids` or `input_ids`, and whatever else is known.

    {"arrival_s": 0.5, "prompt_token_ids": [1, 2, 3], "output_tokens": 16, "session_id": "a", "after": 0, "delay_s": 1.5}

Times may be called as in logs of prompts. `after` is the number, from 0, of an earlier row whose end this one waits for.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import Arrivals, ReadOptions, TraceFormat
from tiercel.tune.traces.formats.prompts import SESSIONS, BodyError, PromptReader, time_of
from tiercel.tune.traces.source import Source
from tiercel.tune.traces.trace import NO_REQUEST, NO_SESSION, Trace

TOKEN_KEYS = ("tokens", "prompt_token_ids", "token_ids", "input_ids")


def read(source: Source, options: ReadOptions) -> Trace:
    """Read a file."""
    source.is_private = True
    prompts, arrivals = PromptReader(options), Arrivals(options)
    builder = TraceBuilder(source.path.name, tokens_per_block=prompts.tokens_per_block)
    for line, row in source.rows(dict[str, Any]):
        key = next((key for key in TOKEN_KEYS if isinstance(row.get(key), list)), None)
        if key is None:
            raise source.wrong(
                line, f"has no list of tokens under any of {', '.join(TOKEN_KEYS)}; correct or remove the row"
            )
        after = row.get("after", NO_REQUEST)
        if type(after) is not int or not NO_REQUEST <= after < builder.num_requests:
            raise source.wrong(line, "must be the number of an earlier row, from 0", key="after", value=after)
        try:
            ((names, num_tokens),) = prompts.prompts({"prompt": row[key]})
        except (BodyError, ValueError) as error:
            reason = "must be one list of tokens from 0 to 2^31 - 1; correct or remove the row"
            raise source.wrong(line, reason, key=key, value=row[key]) from error
        builder.add(
            names,
            arrival_s=time_of(source, line, row, arrivals),
            input_tokens=num_tokens,
            output_tokens=prompts.answer_tokens(row, {}),
            session=next((row[key] for key in SESSIONS if isinstance(row.get(key), str | int)), None),
            after=after,
            delay_s=source.number(line, "delay_s", str(row.get("delay_s", 0))),
            scope=str(row.get("model", "")),
        )
    notes = [*source.notes, *prompts.notes(), *arrivals.note("requests"), *builder.out_of_order()]
    return builder.build(notes=notes)


def write(trace: Trace, put: Callable[[bytes], object]) -> list[str]:
    """Write tokens that stand for each request's: equal where its blocks are, so that any block size reads the same sharing."""
    for request in range(trace.num_requests):
        row: dict[str, Any] = {
            "arrival_s": float(trace.arrivals_s[request]),
            "prompt_token_ids": trace.tokens(request).tolist(),
            "output_tokens": int(trace.output_tokens[request]),
        }
        if trace.sessions[request] != NO_SESSION:
            row["session_id"] = int(trace.sessions[request])
        if trace.after[request] != NO_REQUEST:
            row |= {"after": int(trace.after[request]), "delay_s": float(trace.delays_s[request])}
        put(msgspec.json.encode(row) + b"\n")
    return ["the block size: the tokens are made up, equal where blocks are, and read in blocks of any size"]


def _recognises(row: dict[str, Any]) -> bool:
    return any(isinstance(row.get(key), list) for key in TOKEN_KEYS)


TOKEN_IDS = TraceFormat(name="token-ids", about="JSONL of token ids", recognises=_recognises, read=read, write=write)
