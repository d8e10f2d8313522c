"""The node that a probe measures: a process of its own, which ends when whoever started it does, however that ends.

`python -m tiercel.tune.probe.node_process`: prints where it listens when it serves, and serves until its standard input ends.
"""

import signal
import sys
import tempfile
from pathlib import Path

from tiercel.config import CacheConfig, ModelConfig
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.server import NodeServer

NUM_BLOCKS = 1024
TOKENS_PER_BLOCK = 16
MODEL = ModelConfig(model_id="probe", num_layers=1, num_kv_heads=1, head_size=64, dtype="float16")
"""Blocks of 4 KiB: what is measured is the way to the node, not bytes."""


def main() -> None:
    """Serve until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; whoever started this decides
    settings = CacheConfig(
        num_cpu_blocks=2 * NUM_BLOCKS, tokens_per_block=TOKENS_PER_BLOCK, cpu_hugepages=False, load_policy="always"
    )
    with tempfile.TemporaryDirectory(prefix="tiercel-probe-") as folder:
        endpoint = LocalEndpoint(Path(folder) / "node")
        with NodeServer(MODEL, settings, endpoint):
            sys.stdout.write(f"{endpoint}\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    main()
