"""Writes a trace in a format that others read. The file appears whole or not at all."""

import gzip
from pathlib import Path

from tiercel.errors import ConfigError
from tiercel.tune.files import whole_file
from tiercel.tune.traces.format import TraceFormat
from tiercel.tune.traces.formats import FORMATS
from tiercel.tune.traces.formats.saved import SAVED
from tiercel.tune.traces.trace import Trace

WRITTEN = tuple(found.name for found in FORMATS.values() if found.write is not None)
"""Names of the formats that can be written."""


def write_trace(trace: Trace, path: str | Path, format: str) -> list[str]:  # noqa: A002
    """Write a trace, compressed with gzip if the file is called `.gz`. An existing file is replaced when the new one is whole.

    Args:
        format: a name of `WRITTEN`.

    Returns:
        What of the trace the file does not say, a phrase each.

    Raises:
        ConfigError: the format is not written.
        OSError: the file cannot be written; nothing is left of it.
    """
    found: TraceFormat | None = FORMATS.get(format)
    if found is None or found.write is None:
        raise ConfigError(f"format = {format!r}: must be one of {', '.join(WRITTEN)}")
    path = Path(path)
    compresses = path.suffix == ".gz" and found is not SAVED
    with (
        whole_file(path) as partial,
        gzip.open(partial, "wb", compresslevel=6) if compresses else partial.open("wb") as file,
    ):
        return found.write(trace, file.write)
