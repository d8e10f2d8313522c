"""SIGKILL at random moments: after a restart every hit is byte for byte what was stored, and nothing is lost or leaked.

The cycles run in a process of their own, which forks a child for each; `tests.faults.kill_cycles` says what must hold.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

CYCLES = int(os.environ.get("TIERCEL_KILL_CYCLES", "100"))
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(60 + CYCLES)
@pytest.mark.parametrize("piece", range(2))
@pytest.mark.parametrize("tiers", ["disk", "host", "host+disk"])
def test_no_kill_ever_leads_to_a_wrong_byte_a_leak_a_hang_or_a_lost_block(
    tmp_path: Path, piece: int, tiers: str
) -> None:
    seed = int(os.environ.get("TIERCEL_TEST_SEED", str(random.randrange(2**32)))) + piece
    command = [
        sys.executable,
        "-m",
        "tests.faults.kill_cycles",
        str(tmp_path),
        "--cycles",
        str(CYCLES),
        "--tiers",
        tiers,
    ]
    environment = {**os.environ, "TIERCEL_TEST_SEED": str(seed)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"TIERCEL_TEST_SEED={seed} {' '.join(command)}\n{done.stdout}{done.stderr}"
    result = json.loads(done.stdout)
    assert result["restarts_verified"] > CYCLES // 4
    # A busy machine may kill many a child before its first store, so that there is little to promise; not nothing.
    assert result["hits_read_at_restarts"] >= result["hits_promised_at_restarts"] > 0
