"""The request traces that benchmarks replay: Mooncake's of FAST'25, which are not part of this repository."""

import argparse
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tiercel.hashing import Sequence
from tiercel.tune.traces import Trace, read_trace

TRACE_FILES = {"conversation": "conversation_trace.jsonl", "synthetic": "synthetic_trace.jsonl"}
TOKENS_PER_BLOCK = 512
DEFAULT_FOLDER = Path(os.environ.get("TRACES", Path(__file__).parents[2] / "shared" / "traces"))
"""Beside the repository, unless the environment names another."""
SKIPPED = "SKIPPED: no trace {file} below {folder}; name the folder that holds it with --traces"


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--traces", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="folder of the traces (default: %(default)s)"
    )


def find_traces(folder: Path, names: Iterable[str] = TRACE_FILES) -> list[Trace]:
    """Read those traces that lie anywhere below `folder`; say of each other one that it is skipped."""
    traces = []
    for name in names:
        found = sorted(folder.rglob(TRACE_FILES[name])) if folder.is_dir() else []
        if found:
            traces.append(replace(read_trace(found[0]), name=name))
        else:
            print(SKIPPED.format(file=TRACE_FILES[name], folder=folder))
    return traces


def sequences_of(trace: Trace) -> list[Sequence]:
    """One sequence a request, its keys hashed on first use: one token a block, the block's number."""
    return [Sequence(bytes(16), 1, path) for path in trace.paths()]
