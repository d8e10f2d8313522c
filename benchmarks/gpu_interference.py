"""What does a running transfer cost a decode step, by a kernel, by the copy engine, and staged?

The step stands for one of an 8 B model at batch 8: 32 layers whose weights, 6.4 GB in bf16, are read once, captured in a CUDA
graph. Another thread copies 2 MiB blocks of 32 KiB pieces one way without a pause, 32 MiB a call. Rows are the step's time by
the GPU's clock; those named "rate" say what the transfer reached meanwhile.

Run: python benchmarks/gpu_interference.py [--json FILE] [--repeats N]        (an NVIDIA GPU, PyTorch, tiercel[cuda])
"""

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from _harness import Row, parse_arguments, report
from gpu_copy import ENGINE, Bench, kernel, staged, starter

from tiercel.transfer.cuda import CudaCopyOptions

_WAYS = {
    "kernel of 2 CTAs": kernel(2),
    "kernel of 4 CTAs": kernel(4),
    "kernel of 8 CTAs": kernel(8),
    "copy engine": ENGINE,
    "staged, 2 CTAs": staged(2),
    "staged, 4 CTAs": staged(4),
    "staged, 8 CTAs": staged(8),
    "staged, 16 CTAs": staged(16),
    "staged, 32 CTAs": staged(32),
}
_BLOCKS_PER_CALL = 16
_PIECE_BYTES = 32 << 10
_BLOCK_BYTES = 64 * _PIECE_BYTES


class DecodeStep:
    """A step that reads its weights once."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._weights = [
            (
                torch.randn(4096, 12288, dtype=torch.bfloat16, device="cuda"),
                torch.randn(12288, 4096, dtype=torch.bfloat16, device="cuda"),
            )
            for _ in range(32)
        ]
        self._input = torch.randn(8, 4096, dtype=torch.bfloat16, device="cuda")
        self._run()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._run()

    def _run(self) -> Any:
        hidden = self._input
        for up, down in self._weights:
            hidden = (hidden @ up) @ down * 1e-4
        return hidden

    def milliseconds(self, repeats: int) -> list[float]:
        """How long each of many steps took."""
        times: list[float] = []
        for _ in range(repeats):
            start, stop = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self._graph.replay()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop))
        return times


class Traffic:
    """Copies without a pause in one direction, while entered."""

    def __init__(self, bench: Bench, options: CudaCopyOptions, direction: str) -> None:
        self._stop = threading.Event()
        self._num_calls = 0
        copier, side = bench.copier(options), bench.sides(_PIECE_BYTES, 0)[0]
        program = copier.program(side.pieces, _BLOCK_BYTES)
        start = starter(copier, options, direction)

        def work() -> None:
            at = 0
            while not self._stop.is_set():
                part = slice(at, at + _BLOCKS_PER_CALL)
                start(program, side.ids[part], side.slots[part]).wait()
                at = (at + _BLOCKS_PER_CALL) % (len(side.ids) - _BLOCKS_PER_CALL + 1)
                self._num_calls += 1

        self._thread = threading.Thread(target=work)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        time.sleep(0.1)
        self._started, self._first = time.perf_counter(), self._num_calls
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def gigabytes_per_second(self) -> float:
        moved = (self._num_calls - self._first) * _BLOCKS_PER_CALL * _BLOCK_BYTES
        return moved / (time.perf_counter() - self._started) / 1e9


def step_row(name: str, times: list[float]) -> Row:
    return Row(name=name, value=statistics.median(times), unit="ms", spread=(min(times), max(times)))


def rows_of(bench: Bench, repeats: int) -> Iterator[Row]:
    step = DecodeStep(bench.torch)
    step.milliseconds(20)
    idle = step.milliseconds(repeats)
    yield step_row("decode step, nothing else running", idle)
    for way, options in _WAYS.items():
        for direction in ("D2H", "H2D"):
            idle = step.milliseconds(repeats // 4)
            with Traffic(bench, options, direction) as traffic:
                times = step.milliseconds(repeats)
                reached = traffic.gigabytes_per_second
            yield step_row(f"decode step beside {way}, {direction}", times)
            slower = 100 * (statistics.median(times) / statistics.median(idle) - 1)
            yield Row(name="  slower by", value=slower, unit="%")
            yield Row(name="  rate", value=reached, unit="GB/s", higher_is_better=True)


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 200
    return report(list(rows_of(Bench(repeats), repeats)), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
