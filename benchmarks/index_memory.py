"""How many bytes does the index take a block, in one tier, by the length of its runs?

Each shape fills an index in a process of its own, which reports the growth of its resident memory and what the index
counts itself. Runs have the length named because unrelated sequences of it are stored; `turns` are conversations.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from _harness import Row, parse_arguments, report
from _index_fill import NUM_BLOCKS, fill, random_tokens, sequence_of, store

from tiercel.index import Index

BOUNDS = {"64": 48.0, "16": 64.0, "1": 160.0}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill_and_print(shape: str) -> None:
    rng = np.random.default_rng(1)
    warm = Index([1024])
    for _ in range(100):
        store(warm, sequence_of(random_tokens(rng, 16)))
    index = Index([2 * NUM_BLOCKS])
    conversations: list[object] = []
    before = resident_bytes()
    if shape.startswith("turns"):
        conversations += fill(index, rng, int(shape.split()[-1]))
        before += sum(tokens.nbytes for tokens in conversations if isinstance(tokens, np.ndarray))
    else:
        for _ in range(NUM_BLOCKS // int(shape)):
            store(index, sequence_of(random_tokens(rng, 16 * int(shape))))
    stats = index.stats(0)
    grown = resident_bytes() - before
    result = {"rss": grown / stats.num_ready, "counted": stats.memory_bytes / stats.num_ready, "runs": stats.num_runs}
    print(json.dumps(result))


def main() -> int:
    arguments = parse_arguments(__doc__)
    rows = []
    for shape in ("64", "16", "1", "turns of 1024", "turns of 256"):
        command = [sys.executable, __file__, "--shape", shape]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        name = f"{shape} blocks a run" if shape.isdigit() else f"{shape} tokens, {result['runs']} runs"
        rows.append(Row(name=f"resident, {name}", value=result["rss"], unit="B", bound=BOUNDS.get(shape)))
        rows.append(Row(name=f"counted, {name}", value=result["counted"], unit="B", bound=BOUNDS.get(shape)))
    return report(rows, arguments.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--shape"]:
        fill_and_print(sys.argv[2])
        sys.exit(0)
    sys.exit(main())
