"""The whole demo over three tiny documents: kill, restart, table, report. Needs torch and transformers."""

import io
import random
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch", reason="torch is not installed: the demo is NOT tested")
pytest.importorskip("transformers", reason="transformers is not installed: the demo is NOT tested")

from tiercel.demo import DemoOptions, run_demo


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
