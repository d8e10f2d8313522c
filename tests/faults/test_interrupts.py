"""Ctrl-C and SIGTERM at any moment leave a clean directory and no process; `tests.faults.interrupt_cycles` says how."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tier_samples import disk_options, stripe_folder
from tiercel.tiers.disk import DiskTier

CYCLES = int(os.environ.get("TIERCEL_INTERRUPT_CYCLES", "40"))
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(60 + 2 * CYCLES)
def test_a_signal_at_any_moment_leaves_a_clean_directory_and_no_process(tmp_path: Path) -> None:
    seed = int(os.environ.get("TIERCEL_TEST_SEED", str(random.randrange(2**32))))
    command = [sys.executable, "-m", "tests.faults.interrupt_cycles", str(tmp_path), "--cycles", str(CYCLES)]
    environment = {**os.environ, "TIERCEL_TEST_SEED": str(seed)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"TIERCEL_TEST_SEED={seed} {' '.join(command)}\n{done.stdout}{done.stderr}"


def test_what_a_killed_process_had_not_finished_is_removed_by_the_next_start(tmp_path: Path) -> None:
    DiskTier.open(disk_options(tmp_path)).close()
    folder = stripe_folder(tmp_path)
    unfinished = [folder / name for name in ("checkpoint-7.tmp", "manifest.json.tmp", ".123.status.sock")]
    for path in unfinished:
        path.write_bytes(b"half")
    DiskTier.open(disk_options(tmp_path)).close()
    assert not [path for path in unfinished if path.exists()]
    assert (folder / "manifest.json").exists()
