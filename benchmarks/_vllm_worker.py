"""A benchmark's other half in a process group of its own: an engine that lives on would hold the GPU."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def run_worker(words: Sequence[str], log: Path, timeout_s: float) -> int:
    """Run this script once more, with more words on its command line, and end all that it has started.

    Args:
        log: takes what it prints.

    Returns:
        Its exit code; -SIGKILL if it took longer than `timeout_s`.
    """
    command = [sys.executable, *sys.argv, *words]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:  # Ctrl-C does not reach a group of its own
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def gpu_name() -> str:
    """The GPUs' names and their driver's version; "none" without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
