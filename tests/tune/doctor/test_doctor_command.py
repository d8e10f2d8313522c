"""How `tiercel doctor` prints, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.doctor_facts import HEALTHY, with_system
from tiercel import cli
from tiercel.cli.doctor import print_report
from tiercel.tune.doctor import examine

Capture = pytest.CaptureFixture[str]


def test_the_report_is_short_and_the_most_severe_comes_first(capsys: Capture) -> None:
    print_report(examine(with_system(io_uring_built=False, memfd_error="not permitted", shm_bytes=1 << 20)))
    shown = capsys.readouterr().out
    assert shown.startswith("ERROR\n  shared-memory\n    machine: memfd_create fails: not permitted\n    why: ")
    assert shown.index("ERROR") < shown.index("WARNING\n  io-uring") < shown.index("ADVICE\n  dev-shm")
    assert "OK\n" not in shown
    assert shown.splitlines()[-1].startswith("1 error, 1 warning, 1 advice, ")


def test_what_is_as_it_should_be_is_printed_on_request_only(capsys: Capture) -> None:
    print_report(examine(HEALTHY))
    assert len(capsys.readouterr().out.splitlines()) == 1
    print_report(examine(HEALTHY), verbose=True)
    assert "  io-uring: machine: kernel 6.8.0 gives io_uring rings\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--gpu-memory", "lots"], 2, "--gpu-memory"),
        (["--timeout-s", "0"], 2, "--timeout-s"),
        (["--timeout-s", "1e300"], 2, "--timeout-s 1e+300: must be above 0 and at most 3600 seconds"),
        (["--drive-writes-per-day", "inf"], 2, "--drive-writes-per-day inf: must be positive"),
        (["--nonsense"], 2, "--nonsense"),
        (["--machine", "/no/such/machine.json"], 1, "/no/such/machine.json"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error(words: list[str], code: int, text: str, capsys: Capture) -> None:
    assert cli.main(["doctor", *words]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert text in shown.err


def test_a_folder_with_a_module_of_a_library_s_name_is_not_imported_from(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the working directory')")
    code = "import sys, tiercel.cli; sys.exit(tiercel.cli.main(['doctor', '--directory', sys.argv[1]]))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "working directory" not in done.stdout
