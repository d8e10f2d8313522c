"""What do scattered pieces cost on the host? Gather and scatter of 4 to 64 KiB pieces against one contiguous memcpy.

The engine side is [layers][K and V][pages][piece], a page's pieces lie in 64 places; pages are visited in random order.
The memcpy moves as many bytes in the same run. The rows say GB/s and percent of it.

Run: python benchmarks/host_copy.py [--json FILE] [--repeats N]
"""

import sys

import numpy as np
from _harness import Row, measure, parse_arguments, rate_row, report

from tiercel._native import CopyProgram

_PIECES_PER_BLOCK = 64  # 32 layers, K and V
_COPY_BYTES = 128 << 20
_PIECE_BYTES = (4 << 10, 16 << 10, 32 << 10, 64 << 10)


def _program(engine: np.ndarray, num_pages: int, piece_bytes: int) -> CopyProgram:
    block_bytes = _PIECES_PER_BLOCK * piece_bytes
    pieces = [
        [
            engine.ctypes.data + piece * num_pages * piece_bytes,
            piece_bytes,
            piece * piece_bytes,
            1,
            0,
            0,
            1,
            0,
            piece_bytes,
        ]
        for piece in range(_PIECES_PER_BLOCK)
    ]
    return CopyProgram(np.array(pieces, np.int64), block_bytes)


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 9
    engine = np.ones(_COPY_BYTES, np.uint8)
    slots = np.zeros(_COPY_BYTES, np.uint8)
    contiguous = measure(lambda: np.copyto(slots, engine), repeats)
    rows = [rate_row("contiguous memcpy", contiguous, num_bytes=_COPY_BYTES)]
    for piece_bytes in _PIECE_BYTES:
        block_bytes = _PIECES_PER_BLOCK * piece_bytes
        num_pages = _COPY_BYTES // block_bytes
        pages = np.random.default_rng(0).permutation(num_pages).astype(np.int64)
        addresses = (slots.ctypes.data + np.arange(num_pages) * block_bytes).astype(np.uint64)
        program = _program(engine, num_pages, piece_bytes)
        for name, copy in (("gather", program.gather), ("scatter", program.scatter)):
            for num_threads in (1, 2):

                def run(num_threads: int = num_threads) -> None:
                    copy(pages, addresses, num_threads)  # noqa: B023 - called before the loop goes on

                timing = measure(run, repeats)
                title = f"{name} {piece_bytes >> 10} KiB, {num_threads} thread{'s' if num_threads > 1 else ''}"
                rows.append(rate_row(title, timing, num_bytes=_COPY_BYTES))
                share = 100 * contiguous.median_s / timing.median_s
                rows.append(Row(name="  of the memcpy", value=share, unit="%", higher_is_better=True))
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
