"""Mooncake's rows as a trace: enough of a reader for these tests."""

import json
from pathlib import Path

from tiercel.tune.traces import Trace, TraceBuilder


def read_mooncake(path: Path, format_name: str | None = None) -> Trace:
    """Read one JSON object a line: timestamp in ms, input_length, output_length, hash_ids of 512 tokens."""
    assert format_name in (None, "mooncake")
    builder = TraceBuilder(path.stem, tokens_per_block=512)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        builder.add(
            row["hash_ids"],
            arrival_s=row["timestamp"] / 1e3,
            input_tokens=row["input_length"],
            output_tokens=row["output_length"],
        )
    return builder.build()


def write_mooncake(path: Path) -> None:
    """Write a trace of twelve questions about three documents."""
    rows = [
        {
            "timestamp": 1000 * number,
            "input_length": 2000 + 100 * number,
            "output_length": 50,
            "hash_ids": [
                10 * (number % 3),
                10 * (number % 3) + 1,
                10 * (number % 3) + 2,
                100 + 10 * number,
                101 + 10 * number,
            ],
        }
        for number in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
