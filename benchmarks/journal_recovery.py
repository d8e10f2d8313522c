"""How long a restart takes: replaying the journal of a million blocks, from records, and from a checkpoint.

What is timed is all that `DiskTier.open` does with the journal: reading and checking the files and handing names,
slots and checksums to Python. The files are in the page cache.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from _harness import Row, measure, parse_arguments, report, time_row

from tiercel import _native

NUM_BLOCKS = 1_000_000
BLOCKS_A_RECORD = 32
BOUND_S = 2.0


def main() -> int:
    arguments = parse_arguments(__doc__)
    random = np.random.default_rng(1)
    keys = random.integers(0, 256, (NUM_BLOCKS, 16), dtype=np.uint8)
    slots = random.permutation(NUM_BLOCKS).astype(np.uint32)
    checksums = random.integers(0, 2**63, NUM_BLOCKS, dtype=np.uint64)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-") as directory:
        journal = _native.Journal(directory, num_slots=NUM_BLOCKS)
        journal.recover()
        for start in range(0, NUM_BLOCKS, BLOCKS_A_RECORD):
            part = slice(start, start + BLOCKS_A_RECORD)
            journal.put(bytes(16), keys[part], slots[part], checksums[part])
        rows.append(recovery_row("records", directory, arguments.repeats))
        journal.begin_checkpoint()
        journal.write_checkpoint(keys, keys, slots, checksums)
        journal.close()
        rows.append(recovery_row("checkpoint", directory, arguments.repeats))
    return report(rows, arguments.json)


def recovery_row(what: str, directory: str, repeats: int | None) -> Row:
    def recover() -> None:
        found = _native.replay_journal(directory, num_slots=NUM_BLOCKS)
        assert len(found.keys) == len(found.parents) == len(found.slots) == len(found.checksums) == NUM_BLOCKS

    megabytes = sum(path.stat().st_size for path in Path(directory).iterdir()) / 1e6
    return time_row(
        f"1M blocks from {what}, {megabytes:.0f} MB", measure(recover, repeats or 5), unit="s", bound=BOUND_S
    )


if __name__ == "__main__":
    sys.exit(main())
