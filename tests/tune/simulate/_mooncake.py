"""A trace of a few questions in a file, as Mooncake writes them."""

import json
from pathlib import Path


def write_mooncake(path: Path) -> None:
    """Write a trace of twelve questions about three documents."""
    rows = [
        {
            "timestamp": 1000 * number,
            "input_length": 2100 + 100 * number,
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
