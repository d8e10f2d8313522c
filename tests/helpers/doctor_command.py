"""The command `tiercel doctor` in a process of its own, and processes with caches for it to look at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENTRY = "import sys, tiercel.cli; sys.exit(tiercel.cli.main())"
RUNNING = """
import sys, time
from pathlib import Path
from tests.helpers.small_engine import MODEL, SmallEngine, config, store_prompt, load_prompt
from tiercel import Cache
cache = Cache.open(MODEL, config(Path(sys.argv[1]), disk=256))
engine = SmallEngine(cache.geometry)
store_prompt(cache, engine, 1)
print("ready", flush=True)
seed = 0
while sys.argv[2] == "busy":
    seed += 1
    store_prompt(cache, engine, seed % 50)
    load_prompt(cache, engine, seed % 50)
time.sleep(600)
"""
Found = dict[str, Any]


def doctor(*words: object, expected: int, prefix: tuple[str, ...] = ()) -> list[Found]:
    """Run the command and return its findings; `expected` is its exit code."""
    if "--timeout-s" not in words:
        words = (*words, "--timeout-s", 30)  # tests share their machine
    command = [*prefix, sys.executable, "-c", ENTRY, "doctor", *map(str, words), "--json"]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={**os.environ, "HOME": "/"},
    )
    assert done.returncode == expected, f"{done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert list(report) == ["version", "tiercel", "counts", "findings"]
    findings: list[Found] = report["findings"]
    assert all(list(found) == ["severity", "group", "check", "subject", "seen", "why", "remedy"] for found in findings)
    return findings


def of(findings: list[Found], check: str) -> list[tuple[str, str]]:
    """Return severity and what was seen of one check's findings."""
    return [(found["severity"], found["seen"]) for found in findings if found["check"] == check]


def start(directory: Path, *, busy: bool = False) -> subprocess.Popen[str]:
    """Start a process with a cache and wait until it serves."""
    words = [sys.executable, "-c", RUNNING, str(directory), "busy" if busy else "idle"]
    child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def finish(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()
