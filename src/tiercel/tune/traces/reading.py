"""Reads a trace of any format: finds out which one a file is, by what stands in it, and gives it to that format's reader."""

from pathlib import Path
from typing import Any

import msgspec

from tiercel.errors import ConfigError, FormatError
from tiercel.tune.traces.format import ReadOptions, TraceFormat
from tiercel.tune.traces.formats import FORMATS
from tiercel.tune.traces.formats.aiperf import AIPERF_EXPORT, EXPORT_FILE
from tiercel.tune.traces.formats.recorded import RECORDING, RECORDING_MAGIC
from tiercel.tune.traces.formats.saved import MAGIC as SAVED_MAGIC
from tiercel.tune.traces.formats.saved import SAVED
from tiercel.tune.traces.formats.weka import WEKA, read_folder
from tiercel.tune.traces.source import BOM, Source, json_fault
from tiercel.tune.traces.trace import Trace

_SESSION_FILES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_NAMED_BY = "name it with --format: " + ", ".join(FORMATS)


def read_trace(path: str | Path, format: str | None = None, *, options: ReadOptions | None = None) -> Trace:  # noqa: A002
    """Read a trace.

    Args:
        path: a file, compressed with gzip or not, a folder of WEKA's sessions, or one that AIPerf wrote.
        format: a name of `FORMATS`; None to find out.
        options: what the file does not say.

    Returns:
        The trace. Its notes say what was assumed and what was left out.

    Raises:
        ConfigError: there is no such format.
        FormatError: the file is of no known format, or a row of it is wrong.
        OSError: it cannot be read.
    """
    path, options = Path(path), ReadOptions() if options is None else options
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format = {format!r}: must be one of {', '.join(FORMATS)}")
    if path.is_dir():
        return _read_folder(path, format, options)
    source = Source(path)
    chosen = FORMATS[format] if format is not None else detect_format(source)
    trace = _read(chosen, source, options)
    if not trace.num_requests:
        raise FormatError(
            f"{path} holds no request (read as {chosen.name}); {'; '.join(trace.notes) or 'is it the right file?'}"
        )
    return trace


def detect_format(source: Source) -> TraceFormat:
    """Find out a file's format by its beginning.

    Raises:
        FormatError: it is none of those that are read.
    """
    head = source.head()
    if head.startswith(RECORDING_MAGIC):
        return RECORDING
    if head.startswith(SAVED_MAGIC):
        return SAVED
    text = head.removeprefix(BOM).lstrip()
    if not text:
        raise FormatError(f"{source.path} is empty")
    if b"\0" in head:
        raise FormatError(f"{source.path} is binary and no trace; a trace is one of {', '.join(FORMATS)}")
    row = _first_object(source, text) if text[:1] in b"{[" else _header(text)
    found = next((found for found in FORMATS.values() if found.recognises(row)), None)
    if found is None:
        what = "its columns are" if text[:1] not in b"{[" else "its first object has"
        keys = ", ".join(list(row)[:12])[:200]
        raise FormatError(f"{source.path} is no trace that is known: {what} {keys or 'nothing'}; {_NAMED_BY}")
    return found


def _read(chosen: TraceFormat, source: Source, options: ReadOptions) -> Trace:
    source.format = chosen.name
    return chosen.read(source, options)


def _read_folder(path: Path, format: str | None, options: ReadOptions) -> Trace:  # noqa: A002
    export = path / EXPORT_FILE
    if export.is_file() and format in (None, AIPERF_EXPORT.name):
        return _read(AIPERF_EXPORT, Source(export), options)
    files = sorted(file for file in path.rglob("*") if file.name.endswith(_SESSION_FILES) and file.is_file())
    if not files:
        raise FormatError(f"{path} is a folder without a session ({', '.join(_SESSION_FILES)}); name the trace's file")
    sources = [Source(file, WEKA.name) for file in files]
    if format is None:
        found = detect_format(sources[0])
        if found is not WEKA:
            raise FormatError(f"{path} is a folder whose first file is of format {found.name}; name the trace's file")
    elif format != WEKA.name:
        raise FormatError(f"{path} is a folder, and a trace of format {format} is a file; name it")
    return read_folder(sources, path.name, options)


def _first_object(source: Source, text: bytes) -> dict[str, Any]:
    """Return the first line's JSON object, or the one that the whole file is."""
    line = text.split(b"\n", 1)[0]
    try:
        row = source.document(dict[str, Any]) if json_fault(line) is not None else msgspec.json.decode(line)
    except FormatError as error:
        raise FormatError(f"{source.path} begins with neither a line of JSON nor a JSON object") from error
    if not isinstance(row, dict):
        raise FormatError(
            f"{source.path} is a JSON {type(row).__name__}; a trace has an object a line, or is one object"
        )
    return row


def _header(text: bytes) -> dict[str, Any]:
    line = text.split(b"\n", 1)[0].decode("utf-8", "replace")
    return {cell.strip().strip('"'): "" for cell in line.split(",")}
