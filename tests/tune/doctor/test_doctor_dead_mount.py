"""Doctor on a mount that does not answer: a FUSE filesystem whose server never reads a request."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.doctor_command import doctor, of

MOUNTING = """
import ctypes, os, subprocess, sys
server = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead", os.fsencode(sys.argv[1]), b"fuse", 0, options):
    sys.exit(77)
sys.exit(subprocess.call(sys.argv[2:]))  # its end closes the server's side: the kernel then lets go of whoever waits
"""


def dead_mount(place: Path) -> tuple[str, ...]:
    """Words that run a command while a filesystem that never answers is mounted, for that command alone."""
    if shutil.which("unshare") is None:
        pytest.skip("this machine has no unshare")
    words = ("unshare", "-rm", sys.executable, "-c", MOUNTING, str(place))
    tried = subprocess.run([*words, "true"], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip(f"no filesystem can be mounted here: {tried.stderr.decode().strip()[-200:]}")
    return words


def test_a_directory_on_a_dead_mount_is_told_in_time_and_the_rest_as_well(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    dead.mkdir()
    alive.mkdir()
    prefix = dead_mount(dead)
    started = time.monotonic()
    findings = doctor("--directory", dead / "cache", "--directory", alive, "--timeout-s", 6, expected=2, prefix=prefix)
    assert time.monotonic() - started < 30
    told = {subject: (severity, seen) for subject, severity, seen in _by_subject(findings)}
    assert told[str(dead / "cache")] == ("error", f"the directory {dead / 'cache'} did not answer within 6 s")
    assert told[str(alive)] == ("ok", "0 folders")
    assert of(findings, "writable") == [("ok", "can be written")]


def test_settings_on_a_dead_mount_are_told_in_time(tmp_path: Path) -> None:
    prefix = dead_mount(tmp_path)
    findings = doctor("--config", tmp_path / "tiercel.yaml", "--timeout-s", 6, expected=2, prefix=prefix)
    ((severity, seen),) = of(findings, "readable")
    assert severity == "error"
    assert "did not answer within 6 s" in seen


def _by_subject(findings: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(found["subject"], found["severity"], found["seen"]) for found in findings if found["check"] == "directory"]
