"""How long do keys take? 128K tokens from scratch, and one more block of a growing sequence.

Run: python benchmarks/hashing.py [--json FILE] [--repeats N]
"""

import sys
from collections.abc import Callable

import numpy as np
from _harness import Row, Timing, measure, parse_arguments, report, time_row

from tiercel import _native
from tiercel.hashing import Sequence

_ROOT = bytes(range(16))
_TOKENS_PER_BLOCK = 16
_NUM_TOKENS = 128 * 1024
_STEP_TOKENS = 512
_STEP_BLOCKS = _STEP_TOKENS // _TOKENS_PER_BLOCK
_SCRATCH_BOUND_US = 700.0
_BLOCK_BOUND_US = 0.3
_CALLS_PER_SAMPLE = 50


def _from_scratch(tokens: np.ndarray, repeats: int) -> Timing:
    def run() -> None:
        Sequence(_ROOT, _TOKENS_PER_BLOCK, tokens).keys()

    return measure(run, repeats)


def _many(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(_CALLS_PER_SAMPLE):
            call()

    return run


def _growing(step: np.ndarray, repeats: int) -> Timing:
    sequence = Sequence(_ROOT, _TOKENS_PER_BLOCK)

    def grow() -> None:
        sequence.extend(step)
        sequence.keys(sequence.num_hashed_blocks)

    return measure(_many(grow), repeats)


def _native_block_row(step: np.ndarray, repeats: int) -> Row:
    """The native work alone: a call over 32 blocks less a call over none."""
    nothing = step[:0]
    full = measure(_many(lambda: _native.sha256_chain(_ROOT, step, _TOKENS_PER_BLOCK)), repeats)
    empty = measure(_many(lambda: _native.sha256_chain(_ROOT, nothing, _TOKENS_PER_BLOCK)), repeats)
    value = (full.median_s - empty.median_s) / _CALLS_PER_SAMPLE / _STEP_BLOCKS * 1e6
    return Row(name="one more block, native", value=value, unit="us", bound=_BLOCK_BOUND_US)


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 200
    tokens = np.random.default_rng(0).integers(0, 150_000, _NUM_TOKENS, np.int64)
    narrow = tokens.astype(np.int32)
    from_int32 = _from_scratch(narrow, repeats)
    portable = measure(lambda: _native.sha256_chain(_ROOT, narrow, _TOKENS_PER_BLOCK, portable=True), 20)
    per_step = _CALLS_PER_SAMPLE * _STEP_BLOCKS
    rows = [
        time_row("128K int32 tokens from scratch", from_int32, unit="us", bound=_SCRATCH_BOUND_US),
        Row(name="  thread CPU time", value=from_int32.cpu_median_s * 1e6, unit="us"),
        time_row("128K int64 tokens from scratch", _from_scratch(tokens, repeats), unit="us", bound=_SCRATCH_BOUND_US),
        _native_block_row(narrow[:_STEP_TOKENS], repeats),
        time_row(
            "one more block, extend + keys of 512 tokens / 32",
            _growing(narrow[:_STEP_TOKENS], repeats),
            unit="us",
            bound=_BLOCK_BOUND_US,
            per=per_step,
        ),
        time_row("128K tokens, portable SHA-256", portable, unit="us"),
    ]
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
