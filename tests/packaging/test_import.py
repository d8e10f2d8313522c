"""`import tiercel` is light: it loads no framework and no tool, and starts nothing. How long it takes is measured by
benchmarks/import_time.py, because timings are no tests."""

import json
import subprocess
import sys

HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "sglang",
    "numpy",  # most of the 150 ms by itself: exports are loaded when they are first used
    "asyncio",
    "rich",
    "cyclopts",
    "prometheus_client",
    "yaml",
    "http.server",
    "multiprocessing",
}

PROBE = """
import json, os, sys, threading
{statement}
print(json.dumps({{
    "modules": sorted(sys.modules),
    "threads": threading.active_count(),
    "tasks": len(os.listdir("/proc/self/task")),
    "children": open("/proc/self/task/%d/children" % os.getpid()).read().split(),
}}))
"""


def probe(statement: str) -> dict[str, object]:
    code = PROBE.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_importing_loads_nothing_heavy() -> None:
    found = probe("import tiercel")["modules"]
    assert isinstance(found, list)
    assert HEAVY & set(found) == set()


def test_importing_starts_no_thread_and_no_process() -> None:
    # numpy's BLAS may start threads of its own, so numpy alone is what tiercel is compared with.
    alone, with_tiercel = probe("import numpy"), probe("import numpy, tiercel")
    for kind in ("threads", "tasks", "children"):
        assert with_tiercel[kind] == alone[kind]


def test_every_public_name_can_be_loaded_without_a_framework() -> None:
    found = probe("import tiercel; [getattr(tiercel, name) for name in tiercel.__all__]")["modules"]
    assert isinstance(found, list)
    assert {"torch", "transformers", "vllm", "rich", "cyclopts"} & set(found) == set()


def test_the_command_line_shows_its_help_without_a_framework() -> None:
    quietly = "with contextlib.redirect_stdout(io.StringIO()): tiercel.cli.main(['--help'])"
    found = probe(f"import io, contextlib, tiercel.cli\n{quietly}")
    modules = found["modules"]
    assert isinstance(modules, list)
    assert {"torch", "transformers", "prometheus_client", "tiercel.demo"} & set(modules) == set()
