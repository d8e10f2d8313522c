"""A node and its clients, killed at random moments: no wrong byte, no leak, no hang, and everybody in time.

The processes are forked by one of their own; `tests.faults.node_kills` says what must hold.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("TIERCEL_NODE_KILLS", "16"))
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120 + 2 * KILLS)
@pytest.mark.parametrize("piece", range(2))
def test_no_kill_of_a_node_or_its_clients_leads_to_a_wrong_byte_a_leak_or_a_hang(tmp_path: Path, piece: int) -> None:
    seed = int(os.environ.get("TIERCEL_TEST_SEED", str(2 * random.randrange(2**31)))) + piece
    command = [sys.executable, "-m", "tests.faults.node_kills", str(tmp_path), "--kills", str(KILLS)]
    environment = {**os.environ, "TIERCEL_TEST_SEED": str(seed)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"TIERCEL_TEST_SEED={seed} {' '.join(command)}\n{done.stdout}{done.stderr}"
    result = json.loads(done.stdout)
    assert result["kills"] >= KILLS
    assert result["loaded"] > 0
    assert result["kept_arena"] == (seed % 2 == 0)
