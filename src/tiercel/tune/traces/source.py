"""Where a trace's rows come from: files, compressed or not, line by line, and what is said of a row that is wrong.

Readers never hold a whole file of lines. A last line without its newline that does not parse is a torn tail: it is left out
and noted, as is the end of a `.gz` file that was cut off. Every other wrong row ends the reading with a FormatError that
names file, line, key, value and remedy.
"""

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar, cast

import msgspec

from tiercel.errors import FormatError

HEAD_BYTES = 1 << 16
LINE_BYTES_MAX = 1 << 28
DOCUMENT_BYTES_MAX = 1 << 31
_VALUE_CHARACTERS_MAX = 60
_GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
_TORN = (EOFError, zlib.error)
_NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

TOKENS_MAX = 1 << 27
"""More than any model takes; a larger number is a mistake, and the blocks of such a prompt would fill the memory."""
Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
"""A number of tokens in a row."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""A time or a delay in a row, in whatever unit; counted from the epoch or from anything else."""

Row = TypeVar("Row")


@dataclass(slots=True)
class Source:
    """A file of a trace.

    Attributes:
        format: what its rows are read as, for messages.
        notes: what was assumed or left out so far.
        is_private: its rows hold what people wrote, so messages show no values.
    """

    path: Path
    format: str = "trace"
    notes: list[str] = field(default_factory=list)
    is_private: bool = False

    def open(self) -> BinaryIO:
        """Open the file for reading, decompressing it if it is gzip by its content.

        Raises:
            FormatError: it is a pipe, of which what was read once is gone.
        """
        if self.path.is_fifo():
            raise FormatError(f"{self.path} is a pipe, and a trace is read more than once; write it to a file first")
        with self.path.open("rb") as file:
            is_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        return cast(BinaryIO, gzip.open(self.path, "rb")) if is_compressed else self.path.open("rb")

    def head(self) -> bytes:
        """Return the first bytes; all of them in one first line, if there is one."""
        with self.open() as file:
            try:
                head = file.readline(LINE_BYTES_MAX)
                return head if len(head) >= HEAD_BYTES else head + file.read(HEAD_BYTES - len(head))
            except (*_TORN, gzip.BadGzipFile) as error:
                raise FormatError(f"{self.path} cannot be decompressed: {error}; copy it again") from error

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line that is not blank, with its number; without its newline only where the file ends in it."""
        with self.open() as file:
            number = 0
            try:
                while line := file.readline(LINE_BYTES_MAX):
                    number += 1
                    if len(line) == LINE_BYTES_MAX and line[-1:] != b"\n":
                        raise self.wrong(number, f"is longer than {LINE_BYTES_MAX} bytes; is this a file of lines?")
                    line = line.removeprefix(BOM) if number == 1 else line
                    if line and not line.isspace():
                        yield number, line
            except _TORN as error:
                self.notes.append(f"{self.path} is cut off behind line {number} ({error}): what follows was left out")
            except gzip.BadGzipFile as error:
                raise self.wrong(
                    number, f"is the last that can be decompressed ({error}); copy the file again"
                ) from error

    def rows(self, kind: type[Row]) -> Iterator[tuple[int, Row]]:
        """Yield the JSON object of each line, checked against `kind`, with the line's number."""
        decoder = msgspec.json.Decoder(kind)
        for number, line in self.lines():
            try:
                yield number, decoder.decode(line)
            except _NOT_READ as error:
                if (fault := json_fault(line)) is None:
                    raise self.invalid(number, error, line) from error
                if line[-1:] != b"\n":
                    self.notes.append(f"line {number}, the last one, is torn and was left out")
                    return
                raise self.wrong(number, f"is no JSON ({fault}); correct or remove the line") from error

    def document(self, kind: type[Row]) -> Row:
        """Return the one JSON value that the whole file is, checked against `kind`."""
        with self.open() as file:
            try:
                data = file.read(DOCUMENT_BYTES_MAX).removeprefix(BOM)
            except (*_TORN, gzip.BadGzipFile) as error:
                raise FormatError(f"{self.path} cannot be decompressed: {error}; copy it again") from error
        if len(data) == DOCUMENT_BYTES_MAX:
            raise FormatError(f"{self.path} is one JSON value of more than {DOCUMENT_BYTES_MAX} bytes; split it")
        try:
            return msgspec.json.decode(data, type=kind)
        except _NOT_READ as error:
            if (fault := json_fault(data)) is None:
                raise self.invalid(None, error, data) from error
            raise self.wrong(None, f"is no JSON ({fault}); is it whole?") from error

    def table(self, columns: Mapping[str, str], optional: Container[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the cells of each row of a CSV file, with the line's number.

        Args:
            columns: what cells are to be called -> the header's name of their column.
            optional: those of them that the file may lack; its rows lack them then.
        """
        lines = self.lines()
        _, header = next(lines, (0, b""))
        names = _cells(header)
        for key, name in columns.items():
            if name not in names and key not in optional:
                raise self.wrong(1, f"has no column {name!r}; name another --format")
        places = {key: names.index(name) for key, name in columns.items() if name in names}
        width = max(places.values(), default=0) + 1
        for number, line in lines:
            cells = _cells(line)
            if len(cells) < width or not cells[width - 1]:
                if line[-1:] != b"\n":
                    self.notes.append(f"line {number}, the last one, is torn and was left out")
                    return
                raise self.wrong(
                    number, f"has {sum(map(bool, cells))} cells, not {len(names)}; correct or remove the line"
                )
            yield number, {key: cells[place] for key, place in places.items()}

    def wrong(self, line: int | None, reason: str, *, key: str = "", value: object = None) -> FormatError:
        """Make the error of a wrong row."""
        place = f"{self.path}" if line is None else f"{self.path}, line {line}"
        what = f", {key} = {self._shown(value)}:" if key else ""
        return FormatError(f"{place}{what} {reason} (read as {self.format})")

    def invalid(self, line: int | None, error: Exception, raw: bytes) -> FormatError:
        """Make the error of a row that is JSON, but not of the format."""
        reason, _, path = str(error).partition(" - at `$")
        keys = re.findall(r"[^.\[\]]+", path.rstrip("`"))
        value: Any = msgspec.json.decode(raw)
        for key in keys:
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (LookupError, ValueError, TypeError):  # msgspec says "[...]" of a mapping's value
                break
        told = f"{reason[:1].lower()}{reason[1:]}; correct or remove the row, or name another --format"
        return self.wrong(line, told, key=path.rstrip("`").lstrip("."), value=value)

    def number(self, line: int, key: str, text: str, *, most: float = 1e15) -> float:
        """Return a CSV cell as a number of 0 to `most`."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most:
            raise self.wrong(line, f"must be a number of 0 to {most:g}; correct or remove the row", key=key, value=text)
        return value

    def count(self, line: int, key: str, text: str) -> int:
        """Return a CSV cell as a number of tokens."""
        value = self.number(line, key, text, most=TOKENS_MAX)
        if not value.is_integer():
            raise self.wrong(line, "must be a whole number; correct or remove the row", key=key, value=text)
        return int(value)

    def time(self, line: int, key: str, value: str) -> float:
        """Return seconds: a number as it is, an ISO 8601 text since the epoch, UTC where it names no zone."""
        if value.count("-") < 2:
            return self.number(line, key, value)
        try:
            when = datetime.fromisoformat(value)
        except ValueError as error:
            reason = "must be seconds of 0 or more, or a date and time like 2024-05-10 00:00:00.25; correct or remove the row"
            raise self.wrong(line, reason, key=key, value=value) from error
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()

    def _shown(self, value: object) -> str:
        if self.is_private and not isinstance(value, int | float | None):
            return f"({type(value).__name__}, not shown)"
        text = repr(value)
        return text if len(text) <= _VALUE_CHARACTERS_MAX else f"{text[:_VALUE_CHARACTERS_MAX]}..."


def json_fault(data: bytes) -> Exception | None:
    """Say why bytes are no JSON; None if they are, and only not what was expected."""
    try:
        msgspec.json.decode(data)
    except _NOT_READ as fault:
        return fault
    return None


def _cells(line: bytes) -> list[str]:
    text = line.decode("utf-8-sig", "replace")
    if '"' not in text:
        return [cell.strip() for cell in text.split(",")]
    try:
        return [cell.strip() for cell in next(csv.reader(io.StringIO(text)), [])]
    except csv.Error:  # a line feed where none may stand
        return [text]
