"""The request traces that benchmarks replay: Mooncake's of FAST'25, which are not part of this repository.

A trace is a list of requests, each the numbers of its blocks of 512 tokens, root first. Every block has one parent, so equal
numbers mean equal prefixes and a sequence whose tokens are the numbers has keys with the same property.
"""

import argparse
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel._native import Sequence
from tiercel.tune import traces as tune

TRACE_FILES = {"conversation": "conversation_trace.jsonl", "synthetic": "synthetic_trace.jsonl"}
TOKENS_PER_BLOCK = 512
DEFAULT_FOLDER = Path(os.environ.get("TRACES", Path(__file__).parents[2] / "shared" / "traces"))
"""Beside the repository, unless the environment names another."""
SKIPPED = "SKIPPED: no trace {file} below {folder}; name the folder that holds it with --traces"

Request = NDArray[np.int32]


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival, and when each arrived in seconds."""

    name: str
    requests: list[Request]
    arrivals_s: list[float]

    @property
    def num_references(self) -> int:
        return sum(len(request) for request in self.requests)

    @property
    def num_blocks(self) -> int:
        """Distinct blocks."""
        return 1 + max(int(request.max()) for request in self.requests)

    def sequences(self) -> list[Sequence]:
        """One sequence a request, its keys hashed on first use: one token a block, the block's number."""
        return [Sequence(bytes(16), 1, request) for request in self.requests]


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
            traces.append(read_trace(name, found[0]))
        else:
            print(SKIPPED.format(file=TRACE_FILES[name], folder=folder))
    return traces


def read_trace(name: str, path: Path) -> Trace:
    """Read a file of any format that Tiercel reads."""
    trace = tune.read_trace(path)
    return Trace(name, list(trace.paths()), trace.arrivals_s.tolist())
