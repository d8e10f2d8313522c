"""How long does it take to read a trace of a million requests and ten million blocks, and how much memory?

A Mooncake trace is made up: conversations behind shared prompts that grow turn by turn, seeded. Each row reads it in a process of
its own, so that its peak of memory counts one reading. Bounds: a minute is too long to wait for, so a third of it may be work;
and memory is what the builder promises, 40 bytes a different block and 100 a request.

Run: python benchmarks/trace_read.py [--requests N] [--json FILE] [--repeats N]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _harness import Row, make_parser, report

from tiercel.tune.traces import read_trace, write_trace

NUM_REQUESTS = 1_000_000
SECONDS_BOUND = 60.0
WORK_SECONDS_BOUND = 20.0
BLOCK_BYTES, REQUEST_BYTES = 40, 100
NUM_PROMPTS = 200
NUM_OPEN = 5000
CHILD = """
import json, sys, time
from tiercel.tune.traces import read_trace, summarise_trace, with_tokens_per_block
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, start, cpu = peak(), time.perf_counter(), time.process_time()
trace = read_trace(sys.argv[1])
read_s, cpu_s, read_bytes = time.perf_counter() - start, time.process_time() - cpu, peak() - before
start = time.perf_counter()
summarise_trace(trace)
summary_s, start = time.perf_counter() - start, time.perf_counter()
with_tokens_per_block(trace, 4096)
json.dump({"read_s": read_s, "cpu_s": cpu_s, "bytes": read_bytes, "summary_s": summary_s, "join_s": time.perf_counter() - start,
    "requests": trace.num_requests, "references": trace.num_references, "blocks": trace.num_blocks}, sys.stdout)
"""


def make_trace(path: Path, num_requests: int) -> None:
    """Half of the requests begin a conversation behind one of the shared prompts; the others continue an open one."""
    rng = np.random.default_rng(7)
    prompts = [list(range(number * 10, number * 10 + int(rng.integers(1, 5)))) for number in range(NUM_PROMPTS)]
    num_ids = NUM_PROMPTS * 10
    conversations: list[list[int]] = []
    begins = rng.random(num_requests) < 0.5
    chosen = rng.integers(0, NUM_OPEN, num_requests)
    sizes = rng.integers(1, 9, num_requests)
    with path.open("w") as file:
        for request in range(num_requests):
            if begins[request] or not conversations:
                blocks = list(prompts[chosen[request] % NUM_PROMPTS])
                place = chosen[request] if len(conversations) == NUM_OPEN else len(conversations)
                conversations[place : place + 1] = [blocks]
            else:
                blocks = conversations[chosen[request] % len(conversations)]
            blocks.extend(range(num_ids, num_ids + int(sizes[request])))
            num_ids += int(sizes[request])
            length = 512 * len(blocks) - request % 512
            row = f'{{"timestamp": {request * 3}, "input_length": {length}, "output_length": 200, "hash_ids": {blocks}}}\n'
            file.write(row)


def read_once(path: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def rows_of(name: str, path: Path, repeats: int) -> list[Row]:
    runs = [read_once(path) for _ in range(repeats)]

    def row(title: str, key: str, unit: str, scale: float = 1.0, bound: float | None = None) -> Row:
        values = sorted(run[key] * scale for run in runs)
        spread = (values[0], values[-1])
        return Row(name=f"{name}: {title}", value=values[len(values) // 2], unit=unit, bound=bound, spread=spread)

    first = runs[0]
    size = path.stat().st_size
    memory_bound = (first["blocks"] * BLOCK_BYTES + first["requests"] * REQUEST_BYTES) / 2**20
    return [
        Row(name=f"{name}: requests", value=first["requests"], unit=""),
        Row(name=f"{name}: references", value=first["references"], unit=""),
        Row(name=f"{name}: different blocks", value=first["blocks"], unit=""),
        Row(name=f"{name}: size of the file", value=size / 2**20, unit="MiB"),
        row("read", "read_s", "s", bound=SECONDS_BOUND),
        row("read, processor time", "cpu_s", "s", bound=WORK_SECONDS_BOUND),
        row("read, a request", "cpu_s", "us", 1e6 / first["requests"]),
        row("peak of memory for it", "bytes", "MiB", 1 / 2**20, bound=memory_bound),
        row("summary", "summary_s", "s"),
        row("join 512 to 4096", "join_s", "s"),
    ]


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--requests", type=int, default=NUM_REQUESTS, metavar="N", help="requests (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {"mooncake": Path(folder, "trace.jsonl"), "tiercel": Path(folder, "trace.npz")}
        make_trace(files["mooncake"], arguments.requests)
        write_trace(read_trace(files["mooncake"]), files["tiercel"], "tiercel")
        rows = [row for name, path in files.items() for row in rows_of(name, path, arguments.repeats or 3)]
        return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
