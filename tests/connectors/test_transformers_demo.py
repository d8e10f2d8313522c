"""The whole demo over three tiny documents: kill, restart, table, report. Needs torch and transformers."""

import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.seeds import chosen_seed

pytest.importorskip("torch", reason="torch is not installed: the demo is NOT tested")
pytest.importorskip("transformers", reason="transformers is not installed: the demo is NOT tested")

from tiercel.demo import DemoOptions, run_demo

SIGNALS_SENT = int(os.environ.get("TIERCEL_DEMO_SIGNALS", "4"))
MARK = "TIERCEL_TEST_MARK"


def marked(mark: str) -> list[int]:
    """Processes that were started, by whomever, with a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def gone(mark: str, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while marked(mark):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.timeout(60 + 60 * SIGNALS_SENT)
def test_a_signal_at_any_moment_ends_the_demo_and_leaves_no_process_and_no_directory(tmp_path: Path) -> None:
    generator = random.Random(chosen_seed())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell runs the tests in the background
    docs, work = tmp_path / "docs", tmp_path / "work"
    docs.mkdir()
    work.mkdir()
    for name in "abc":
        (docs / f"{name}.txt").write_text("\n".join(f"{name}{line} one two three" for line in range(200)))
    start = "import sys; from tiercel.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "demo", "--quick", "--docs", str(docs), "--dir", str(work)]
    command += ["--report", str(tmp_path / "report.html")]
    for number in range(SIGNALS_SENT):
        sent, mark = generator.choice([signal.SIGINT, signal.SIGTERM]), f"{os.getpid()}-{number}"
        with subprocess.Popen(
            command,
            env={**os.environ, MARK: mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as demo:
            until = time.monotonic() + 60
            while not list(work.iterdir()) and demo.poll() is None and time.monotonic() < until:
                time.sleep(0.005)  # until then it is Python that is interrupted, not the demo
            delay_s = generator.uniform(0.0, 6.0)
            time.sleep(delay_s)
            told = f"{sent.name} {delay_s:.3f} s after the start"
            demo.send_signal(sent)
            said, _ = demo.communicate(timeout=40)
        assert demo.returncode in (0, 130, -sent), f"{told}: {demo.returncode}\n{said.decode()}"
        assert list(work.iterdir()) == [], told
        assert gone(mark, 20), f"{told}: left {marked(mark)}"


@pytest.mark.processes
def test_the_demo_verifies_every_token_and_byte_across_a_kill_and_leaves_only_its_report(tmp_path: Path) -> None:
    docs, work = tmp_path / "docs", tmp_path / "work"
    docs.mkdir()
    work.mkdir()
    words = [f"word{number}" for number in range(50)]
    for name in "abc":
        chance = random.Random(name)
        (docs / f"{name}.txt").write_text("\n".join(" ".join(chance.choices(words, k=8)) for _ in range(45)))
    report = tmp_path / "report.html"
    output = io.StringIO()
    options = DemoOptions(docs=docs, dir=work, report=report, quick=True)
    code = run_demo(options, console=Console(file=output, width=100))
    assert code == 0, output.getvalue()
    assert "disk hit after the kill" in output.getvalue()
    assert "restored blocks are byte-equal" in output.getvalue()
    page = report.read_text()
    assert page.count("<svg") == 5
    assert list(work.iterdir()) == []
