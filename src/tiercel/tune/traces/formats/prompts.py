"""Logs of prompts: OpenAI request bodies, chat and completions, a JSON object a line, bare or below `body`, `request`, `payload`.

    {"timestamp": 1731000000.5, "model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}
    {"custom_id": "7", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "Hello"}}

A chat is laid out as one text, tools first, then each message's role and content, so that a longer chat begins with the shorter
one; a model's own chat template may put a few tokens more or less. The text is tokenised and hashed and then forgotten: the trace
holds neither. Prompts of different models share nothing.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import TOKENS_PER_BLOCK, Arrivals, ReadOptions, TraceFormat
from tiercel.tune.traces.formats.blocks import Names
from tiercel.tune.traces.source import TOKENS_MAX, Source
from tiercel.tune.traces.tokens import BlockNamer, Tokenizer, bytes_tokenizer
from tiercel.tune.traces.trace import Trace

TIMES = ("timestamp", "arrival_s", "created", "created_at", "time", "ts")
SESSIONS = ("session_id", "conversation_id")
ANSWER_LIMITS = ("max_completion_tokens", "max_tokens", "output_length", "output_tokens")
BODIES = ("body", "request", "payload")

TokenArray = list[int] | NDArray[np.int32]


class BodyError(Exception):
    """A request body that cannot be read: its key and the reason."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class PromptReader:
    """Turns request bodies into names of blocks."""

    def __init__(self, options: ReadOptions) -> None:
        self.tokens_per_block = options.tokens_per_block or TOKENS_PER_BLOCK
        self.tokenizer: Tokenizer = options.tokenizer
        self.num_without_answer = 0
        self._namer = BlockNamer(self.tokens_per_block)
        self._had_text = False

    def prompts(self, body: Mapping[str, Any]) -> Iterator[tuple[Names, int]]:
        """Yield names of the full blocks and number of tokens, of each prompt that the body asks for.

        Raises:
            BodyError: it is no OpenAI request.
        """
        for part in _parts(body):
            tokens = self._tokens(part) if isinstance(part, str) else part
            try:
                yield self._namer.names(tokens), len(tokens)
            except (ValueError, TypeError, OverflowError) as error:
                raise BodyError("prompt", "must be text or tokens from 0 to 2^31 - 1") from error

    def answer_tokens(self, row: Mapping[str, Any], body: Mapping[str, Any]) -> int:
        """Return the tokens of the answer: used if the row says so, else the most that were asked for, else 0."""
        for holder in (row, row.get("response"), _dict(row.get("response")).get("body")):
            used = _dict(_dict(holder).get("usage")).get("completion_tokens")
            if (count := _count(used)) is not None:
                return count
        for key in ANSWER_LIMITS:
            for holder in (row, body):
                if (count := _count(holder.get(key))) is not None:
                    return count
        self.num_without_answer += 1
        return 0

    def notes(self) -> list[str]:
        """Say what was assumed of texts and answers."""
        notes = []
        if self._had_text:
            notes.append(
                "chats were laid out as role and content; the model's own template may differ by a few tokens a message"
            )
            if self.tokenizer is bytes_tokenizer:
                notes.append(
                    "a token is a byte of text, some four times as many as a model's: give --tokenizer for its own"
                )
        if self.num_without_answer:
            notes.append(f"{self.num_without_answer} requests do not say how long their answers are: 0 was taken")
        return notes

    def _tokens(self, text: str) -> TokenArray:
        self._had_text = True
        tokens = self.tokenizer(text)
        return tokens if isinstance(tokens, np.ndarray) else list(tokens)


def read(source: Source, options: ReadOptions) -> Trace:
    """Read a log."""
    source.is_private = True
    prompts, arrivals = PromptReader(options), Arrivals(options)
    builder = TraceBuilder(source.path.name, tokens_per_block=prompts.tokens_per_block)
    for line, row in source.rows(dict[str, Any]):
        body = body_of(row)
        arrival_s = time_of(source, line, row, arrivals)
        session: Hashable = next((row[key] for key in SESSIONS if isinstance(row.get(key), str | int)), None)
        answer = prompts.answer_tokens(row, body)
        try:
            for names, num_tokens in prompts.prompts(body):
                builder.add(
                    names,
                    arrival_s=arrival_s,
                    input_tokens=num_tokens,
                    output_tokens=answer,
                    session=session,
                    scope=str(body.get("model", "")),
                )
        except BodyError as error:
            raise source.wrong(
                line, f"{error}; correct or remove the row", key=error.key, value=body.get(error.key)
            ) from error
    notes = [*source.notes, *prompts.notes(), *arrivals.note("requests"), *builder.out_of_order()]
    return builder.build(notes=notes)


def body_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request body of a row, which may be the row itself."""
    return next((row[key] for key in BODIES if isinstance(row.get(key), dict)), row)


def time_of(source: Source, line: int, row: Mapping[str, Any], arrivals: Arrivals) -> float:
    """Return when a row's request came, in seconds. Mooncake's rows with text, which have `output_length`, count in ms."""
    if isinstance(row.get("timestamp_ms"), int | float):
        return source.number(line, "timestamp_ms", str(row["timestamp_ms"])) / 1e3
    key = next((key for key in TIMES if row.get(key) is not None), None)
    if key is None:
        return arrivals.next()
    if isinstance(row[key], bool) or not isinstance(row[key], int | float | str):
        raise source.wrong(line, "must be seconds, or a date and time", key=key, value=row[key])
    value = source.time(line, key, str(row[key]))
    return value / 1e3 if "output_length" in row and key == "timestamp" else value


def _parts(body: Mapping[str, Any]) -> list[str | list[int]]:
    """Return the prompts of a body, texts or tokens."""
    if "messages" in body:
        return [_chat_text(body)]
    key = next((key for key in ("prompt", "input", "text_input") if key in body), None)
    if key is None:
        raise BodyError("messages", "is missing, and so is prompt")
    prompt = body[key]
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in prompt):
        return [prompt]
    if isinstance(prompt, list) and all(isinstance(item, str | list) for item in prompt):
        return prompt
    raise BodyError(key, "must be a text, tokens, or a list of either")


def _chat_text(body: Mapping[str, Any]) -> str:
    messages = body["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BodyError("messages", "must be a list of messages")
    tools = body.get("tools")
    parts = [f"<tools>{_json(tools)}\n"] if tools else []
    for message in messages:
        calls = message.get("tool_calls")
        parts += [
            f"<{message.get('role', '')}>",
            _content_text(message.get("content")),
            _json(calls) if calls else "",
            "\n",
        ]
    return "".join(parts)


def _content_text(content: object) -> str:
    """Return a message's text; a part that is none, such as an image, as its JSON, so that equal ones are equal."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "".join(
            text if isinstance(text, str) else _json(part) for text, part in zip(texts, content, strict=True)
        )
    raise BodyError("messages", "must have contents of text or parts")


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX:
        return value
    return None


def _recognises(row: dict[str, Any]) -> bool:
    body = body_of(row)
    return "messages" in body or isinstance(body.get("prompt"), str | list) or "text_input" in body


PROMPTS = TraceFormat(name="prompts", about="logs of OpenAI request bodies", recognises=_recognises, read=read)
