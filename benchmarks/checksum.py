"""How fast is the checksum on one core? Blocks that fit the caches, and many more than fit.

Run: python benchmarks/checksum.py [--json FILE] [--repeats N]
"""

import sys

import numpy as np
from _harness import measure, parse_arguments, rate_row, report

from tiercel._native import checksum, cpu_features

_BOUND_GB_PER_S = 10.0
_STREAM_BYTES = 256 << 20
_BLOCK_BYTES = (64 << 10, 256 << 10, 2 << 20)


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 30
    data = np.random.default_rng(0).integers(0, 256, _STREAM_BYTES, np.uint8)
    print(f"# fast paths: {[name for name, present in cpu_features().items() if present]}")
    rows = []
    for block_bytes in _BLOCK_BYTES:
        block = data[:block_bytes]
        calls = (16 << 20) // block_bytes

        def one_block(block: np.ndarray = block, calls: int = calls) -> None:
            for _ in range(calls):
                checksum(block)

        name = f"{block_bytes >> 10} KiB, in cache"
        rows.append(rate_row(name, measure(one_block, repeats), num_bytes=16 << 20, bound=_BOUND_GB_PER_S))

        blocks = list(data.reshape(-1, block_bytes))

        def all_blocks(blocks: list[np.ndarray] = blocks) -> None:
            for block in blocks:
                checksum(block)

        name = f"{block_bytes >> 10} KiB, from memory"
        timing = measure(all_blocks, max(3, repeats // 5))
        rows.append(rate_row(name, timing, num_bytes=_STREAM_BYTES, bound=_BOUND_GB_PER_S))
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
