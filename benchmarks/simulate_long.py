"""Does `tiercel simulate` run a million requests in minutes, and in how much memory?

Conversations are made by a seeded generator (`simulate.make_conversations`) and written to a file; the command then runs on it
in a process of its own, as an operator would run it: reading, simulating and summing up. Beside it `tiercel trace info` on the
same file, which only reads: what memory is the trace's, and what the simulation's. A host tier of 256 GiB and a disk tier of
2 TiB, blocks of 512 tokens of Llama 3 8B, four engines; the machine is a stated one (`advise.stated_machine`).

    python benchmarks/simulate_long.py --requests 1000000 --json benchmarks/results/simulate_long.json
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _harness import Row, make_parser, report
from advise import stated_machine
from simulate import make_conversations

from tiercel.tune.machine import write_machine
from tiercel.tune.traces import write_trace

MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}
CONFIG = """\
tokens_per_block: 512
enable_cpu: true
num_cpu_blocks: 256GiB
enable_ssd: true
num_ssd_blocks: 2TiB
ssd_cache_dir: /nvme0
"""
PREFILL = {"fixed_s": 5e-3, "token_s": 2e-5, "token_pair_s": 4e-10}
SIMULATE = [
    *("simulate", "trace.npz", "--config", "tiercel.yaml", "--model", "config.json", "--machine", "machine.json"),
    *("--prefill", "prefill.json", "--gpu-kv", "40GiB", "--decode-ms", "20", "--replicas", "4", "--json"),
]
READ = ["trace", "info", "trace.npz", "--json"]
COMMAND = "import sys, tiercel.cli; tiercel.cli.main(sys.argv[1:])"


@dataclass(frozen=True)
class Run:
    """A command that has ended: what it printed, seconds of CPU and of the clock, and the most memory it held."""

    printed: str
    cpu_s: float
    wall_s: float
    peak_bytes: int


def run(arguments: list[str], folder: Path) -> Run:
    """Run the command line in a process of its own. Raises RuntimeError if it fails."""
    started = time.monotonic()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], cwd=folder, stdout=output)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"tiercel {' '.join(arguments)} ended with {process.returncode}")
    wall_s = time.monotonic() - started
    return Run((folder / "output").read_text(), used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss * 1024)


def write_inputs(folder: Path, num_requests: int, seed: int) -> int:
    """Write the trace and what the command needs beside it. Returns the references of all requests together."""
    trace = make_conversations(num_requests, seed)
    write_trace(trace, folder / "trace.npz", "tiercel")
    write_machine(stated_machine(), folder / "machine.json")
    (folder / "config.json").write_text(json.dumps(MODEL))
    (folder / "prefill.json").write_text(json.dumps(PREFILL))
    (folder / "tiercel.yaml").write_text(CONFIG)
    return trace.num_references


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the trace (default: %(default)s)")
    arguments = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        num_references = write_inputs(folder, arguments.requests, arguments.seed)
        read, simulated = run(READ, folder), run(SIMULATE, folder)
    title = f"{arguments.requests} requests, {num_references} references"
    rows = [
        Row(name=f"{title}: processor time", value=simulated.cpu_s / 60, unit="min"),
        Row(name=f"{title}: by the clock", value=simulated.wall_s / 60, unit="min"),
        Row(name=f"{title}: processor time, each", value=1e6 * simulated.cpu_s / arguments.requests, unit="us"),
        Row(name=f"{title}: resident at most", value=simulated.peak_bytes / 2**20, unit="MiB"),
        Row(name=f"{title}: only read: processor time", value=read.cpu_s / 60, unit="min"),
        Row(name=f"{title}: only read: resident at most", value=read.peak_bytes / 2**20, unit="MiB"),
    ]
    details = {
        "command": "tiercel " + " ".join(SIMULATE),
        "seed": arguments.seed,
        "load_average": {"before": load, "after": os.getloadavg()},
        "printed": json.loads(simulated.printed),
    }
    return report(rows, arguments.json, details=details)


if __name__ == "__main__":
    sys.exit(main())
