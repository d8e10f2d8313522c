"""Tiercel's own file of a trace: all of it, small and quick to read. A numpy archive of the trace's arrays and its texts."""

import io
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from tiercel._native import trace_depths
from tiercel.errors import FormatError
from tiercel.tune.traces.format import ReadOptions, TraceFormat
from tiercel.tune.traces.reblock import with_tokens_per_block
from tiercel.tune.traces.source import TOKENS_MAX, Source
from tiercel.tune.traces.trace import NO_BLOCK, NO_REQUEST, NO_SESSION, Trace, printable

MAGIC = b"PK\x03\x04"
VERSION = 1
_ARRAYS = {
    "parents": "int32",
    "leaves": "int32",
    "arrivals_s": "float64",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "sessions": "int32",
    "after": "int32",
    "delays_s": "float64",
}
_ABOUT = "about"
_DAMAGE = (
    ValueError,
    KeyError,
    EOFError,
    MemoryError,  # so many numbers as no trace has
    NotImplementedError,  # what a damaged archive says of its compression
    zipfile.BadZipFile,
    zlib.error,
    msgspec.DecodeError,
)


class SavedAbout(msgspec.Struct, frozen=True, kw_only=True):
    """What is no array."""

    version: int
    name: str
    tokens_per_block: int
    notes: tuple[str, ...]


def read(source: Source, options: ReadOptions) -> Trace:
    """Read a file; it is checked, as anybody may have written it."""
    data = source.path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            about = msgspec.json.decode(bytes(archive[_ABOUT]), type=SavedAbout)
            arrays = {name: np.ascontiguousarray(archive[name]) for name in _ARRAYS}
    except _DAMAGE as error:
        raise FormatError(f"{source.path} is no trace that Tiercel wrote, or damaged: {error}") from error
    if about.version != VERSION:
        raise FormatError(f"{source.path} is a trace of version {about.version}; this version reads {VERSION}")
    reason = _fault(about, arrays)
    if reason:
        raise FormatError(f"{source.path} is damaged: {reason}")
    trace = Trace(name=printable(about.name), tokens_per_block=about.tokens_per_block, notes=about.notes, **arrays)
    size = options.tokens_per_block
    return trace if size is None else with_tokens_per_block(trace, size)


def write(trace: Trace, put: Callable[[bytes], object]) -> list[str]:
    """Write the whole trace; nothing is lost."""
    about = SavedAbout(version=VERSION, name=trace.name, tokens_per_block=trace.tokens_per_block, notes=trace.notes)
    arrays: dict[str, Any] = {name: getattr(trace, name) for name in _ARRAYS}
    arrays[_ABOUT] = np.frombuffer(msgspec.json.encode(about), np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    put(file.getvalue())
    return []


def _fault(about: SavedAbout, arrays: dict[str, np.ndarray]) -> str:
    """Say what is wrong with the arrays of a file, or nothing."""
    for name, dtype in _ARRAYS.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != 1:
            return f"{name} is no list of {dtype}"
        if name != "parents" and len(arrays[name]) != len(arrays["leaves"]):
            return f"{name} has {len(arrays[name])} numbers, leaves {len(arrays['leaves'])}"
    numbers = np.arange(len(arrays["leaves"]))
    after, arrivals = arrays["after"], arrays["arrivals_s"]
    try:
        trace_depths(arrays["parents"])
    except ValueError as error:
        return str(error)
    checks = {
        "tokens_per_block is less than 1": about.tokens_per_block < 1,
        "a leaf is no block": np.any((arrays["leaves"] < NO_BLOCK) | (arrays["leaves"] >= len(arrays["parents"]))),
        "a number of tokens is negative": np.any((arrays["input_tokens"] < 0) | (arrays["output_tokens"] < 0)),
        "a prompt or an answer has more tokens than any model takes": np.any(
            (arrays["input_tokens"] > TOKENS_MAX) | (arrays["output_tokens"] > TOKENS_MAX)
        ),
        "a session is less than none": np.any(arrays["sessions"] < NO_SESSION),
        "a request waits for none before it": np.any((after < NO_REQUEST) | (after >= numbers)),
        "a time is none": not np.all(np.isfinite(arrivals)) or not np.all(np.isfinite(arrays["delays_s"])),
        "the requests are not in order of time": np.any(np.diff(arrivals) < 0),
    }
    return next((reason for reason, is_so in checks.items() if is_so), "")


SAVED = TraceFormat(
    name="tiercel", about="Tiercel's own file, whole and small", recognises=lambda row: False, read=read, write=write
)
