"""How many bytes of memory does a running cache take for each block that it holds, beside the blocks themselves?

A cache with a disk tier of a million tiny blocks and a small host tier is filled through the facade, in a process of its own.
Anonymous resident memory is read before it is opened, when it is open, when it is full, after a checkpoint and after a
restart; the host arena is shared memory and not in it. Beside it stands what each part says of itself; "unaccounted" is
what no part claims.

    python benchmarks/memory.py --dir /mnt/nvme [--blocks 1000000]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _harness import Row, make_parser, report

from tiercel import Cache, CacheConfig, EngineMemory, ModelConfig

MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=8, dtype="float16", model_id="tiny")
TOKENS_PER_BLOCK = 16
SEQUENCE_BLOCKS = 256
HOST_BLOCKS = 4096


def main() -> int:
    arguments = parse_arguments()
    if arguments.child:
        measure(arguments.dir, arguments.blocks)
        return 0
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as directory:
        command = [sys.executable, __file__, "--child", "--dir", directory, "--blocks", str(arguments.blocks)]
        runs = []
        for _ in range(2):  # the second one finds what the first one left
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    rows: list[Row] = []
    for name, parts in zip(("filled", "restarted"), runs, strict=True):
        rows += [Row(name=f"{name}: {part}", value=value / arguments.blocks, unit="B") for part, value in parts.items()]
    return report(rows, arguments.json)


def measure(directory: Path, num_blocks: int) -> None:
    """Open a cache, fill it if it is empty, and print bytes by part."""
    config = CacheConfig(
        enable_cpu=True,
        num_cpu_blocks=HOST_BLOCKS,
        enable_ssd=True,
        num_ssd_blocks=num_blocks,
        ssd_cache_dir=str(directory),
        tokens_per_block=TOKENS_PER_BLOCK,
    )
    before = anonymous_bytes()
    with Cache.open(MODEL, config) as cache:
        opened = anonymous_bytes()
        is_warm = cache._assembly.control.index.stats(1).num_ready > 0
        if not is_warm:
            fill(cache, num_blocks)
        filled = anonymous_bytes()
        cache._assembly.checkpoint()
        after_checkpoint = anonymous_bytes()
        parts = parts_of(cache)
    totals = {"resident, open": opened - before}
    if not is_warm:
        totals["resident, full"] = filled - before
    totals["resident, after a checkpoint"] = after_checkpoint - before
    totals["most while it ran"] = peak_bytes() - before
    print(json.dumps(totals | parts | {"unaccounted": filled - before - sum(parts.values())}))


def fill(cache: Cache, num_blocks: int) -> None:
    shape = (SEQUENCE_BLOCKS, TOKENS_PER_BLOCK, MODEL.num_kv_heads, MODEL.head_size)
    keys, values = [np.ones(shape, np.uint16)], [np.ones(shape, np.uint16)]
    memory = EngineMemory.from_arrays(cache.geometry, keys, values, axes="block token head dim")
    blocks = memory.blocks(np.arange(SEQUENCE_BLOCKS))
    random = np.random.default_rng(1)
    for _ in range(num_blocks // SEQUENCE_BLOCKS):
        tokens = random.integers(0, 150_000, SEQUENCE_BLOCKS * TOKENS_PER_BLOCK, dtype=np.int32)
        cache.store(cache.sequence(tokens), blocks).wait(60)


def parts_of(cache: Cache) -> dict[str, int]:
    """What each part holds, in bytes."""
    disk = cache._assembly.disk
    assert disk is not None
    records = disk._records
    return {
        "index": cache._assembly.control.index.stats(1).memory_bytes,
        "records: names": records.keys.nbytes,
        "records: names of parents": records.parents.nbytes,
        "records: checksums": records.checksums.nbytes,
        "records: whether recorded": records._recorded.nbytes,
        "states of slots": disk._states._states.nbytes,
        "what was recovered": disk._recovered_slots.nbytes,
    }


def anonymous_bytes() -> int:
    return status_bytes("RssAnon")


def peak_bytes() -> int:
    """The most anonymous memory so far: the peak of all resident memory, less what of it is not anonymous now."""
    return status_bytes("VmHWM") - status_bytes("RssFile") - status_bytes("RssShmem")


def status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--dir", type=Path, default=Path.cwd(), help="where the files go, 4 KiB a block; removed afterwards"
    )
    parser.add_argument("--blocks", type=int, default=1_000_000, help="blocks in the disk tier")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
