"""Structured logs on the standard logging module, and notes about silent fallbacks.

The package logs to children of the logger `tiercel` and configures nothing by itself; a program that wants our format
calls `configure`. Fields given as `extra=` are kept in both formats, and a request id bound around a call is added to
every line that the call logs, on its thread or task.
"""

import json
import logging
import reprlib
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from threading import Lock
from typing import IO, Any, Literal

LogFormat = Literal["human", "json"]

REQUEST_ID_CHARS_MAX = 4096
"""Longest request id, far below what one record of a recording may take."""

NOTES_MAX = 64
"""Different notes kept per cache; later ones are still logged."""

_request_id: ContextVar[str | None] = ContextVar("tiercel_request_id", default=None)
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_HANDLER_NAME = "tiercel"


class bind_request_id:  # noqa: N801 (used like a function)
    """Add a request id to every line logged inside a `with` block by this thread or task, and by Tiercel's threads for what
    was started there. None leaves what is bound.

    A class, since a generator's context manager costs several times as much, and this is entered for every operation.
    """

    __slots__ = ("_request_id", "_token")

    def __init__(self, request_id: str | None) -> None:
        """Raises TypeError or ValueError as `check_request_id`."""
        check_request_id(request_id)
        self._request_id = request_id
        self._token: Token[str | None] | None = None

    def __enter__(self) -> None:
        if self._request_id is not None:
            self._token = _request_id.set(self._request_id)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _request_id.reset(self._token)
            self._token = None


def check_request_id(request_id: object) -> None:
    """Raise TypeError for what is no text, ValueError for a text that lines of a log and a recording cannot hold."""
    if request_id is None:
        return
    if not isinstance(request_id, str):
        raise TypeError(f"request_id = {reprlib.repr(request_id)}: must be a str, or None for the one that is bound")
    if len(request_id) > REQUEST_ID_CHARS_MAX:
        raise ValueError(
            f"request_id of {len(request_id)} characters: must have at most {REQUEST_ID_CHARS_MAX}; cut it"
        )
    if not request_id.isascii():
        try:
            request_id.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"request_id = {reprlib.repr(request_id)}: must be text that UTF-8 has") from error


def current_request_id() -> str | None:
    """Return what `bind_request_id` bound here, if anything."""
    return _request_id.get()


def adopt_request_id(request_id: str | None) -> None:
    """Log what this thread does from now on under `request_id`. For worker threads that serve one request after another."""
    _request_id.set(request_id)


def configure(level: int | str = "INFO", log_format: LogFormat = "human", *, stream: IO[str] | None = None) -> None:
    """Send Tiercel's logs to a stream in the given format, in place of an earlier call's.

    Only the logger `tiercel` is touched, and its lines no longer reach the root logger's handlers.

    Args:
        level: lowest level that is written, by name or number.
        log_format: "human" for one readable line, "json" for one JSON object a line.
        stream: where lines go; standard error by default.

    Raises:
        ValueError: unknown level or format. Nothing was changed.
    """
    formatters: dict[str, type[logging.Formatter]] = {"human": HumanFormatter, "json": JsonFormatter}
    if log_format not in formatters:
        raise ValueError(f"log format {log_format!r} is unknown; use 'human' or 'json'")
    logger = logging.getLogger("tiercel")
    logger.setLevel(level)
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(formatters[log_format]())
    for old in [existing for existing in logger.handlers if existing.get_name() == _HANDLER_NAME]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what the caller gave as `extra=`, and the request id if one is bound."""
    fields = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
    request_id = _request_id.get()
    if request_id is not None:
        fields.setdefault("request_id", request_id)
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the extra fields and an exception's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON; values that JSON does not know are written as their repr."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in _fields(record).items() if key not in line)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """One readable line: time, level, logger, message, then the extra fields as key=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base class's name)
        """Return the line without a traceback."""
        fields = "".join(f" {key}={_on_one_line(value)}" for key, value in _fields(record).items())
        return super().formatMessage(record) + fields


def _on_one_line(value: object) -> str:
    """Return a value as text; what a terminal or a reader of lines would obey, such as a line's end in a client's request id,
    is quoted and escaped."""
    text = str(value)
    return text if text.isprintable() else repr(text)


class Notes:
    """Silent fallbacks of one cache, in words: each is logged once as a warning and kept for the status.

    Args:
        count: told the kind of every fallback, also of one that was noted before.

    Thread-safe.
    """

    def __init__(self, logger: logging.Logger, count: Callable[[str], None] | None = None) -> None:
        self._logger = logger
        self._count = count
        self._lock = Lock()
        self._texts: dict[str, None] = {}

    def add(self, text: str, *, kind: str) -> None:
        """Count a fallback; log and keep its text, unless the same one was added before.

        Args:
            text: what is slower or less safe than asked, and the remedy.
            kind: a short name that does not change, for the counter.
        """
        if self._count is not None:
            self._count(kind)
        with self._lock:
            if text in self._texts or len(self._texts) >= NOTES_MAX:
                return
            self._texts[text] = None
        self._logger.warning(text, extra={"event": "fallback", "kind": kind})

    def texts(self) -> tuple[str, ...]:
        """Return the notes so far, oldest first."""
        with self._lock:
            return tuple(self._texts)
