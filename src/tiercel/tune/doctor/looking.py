"""Looking without being held up: each errand is done by a process of its own, which is left behind if it does not end.

A thread would not do: one that waits for a dead network mount cannot be ended, and its process cannot end either. The child
that hangs is killed; if the kernel does not let it die, it stays until its mount answers, and doctor does not wait for it.
"""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from tiercel.tune.doctor.errands import (
    Errand,
    LookAtDirectory,
    LookAtMachineFile,
    LookAtProcess,
    LookAtSettings,
    LookAtSystem,
)

LOOK_TIMEOUT_S = 8.0
"""Longest wait for one errand; two rounds of them make a diagnosis."""
_AT_ONCE = 8
_KILL_TIMEOUT_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a looking process told.

    Attributes:
        line: its last whole line of JSON, b"" if there is none.
        problem: why there is no more, or "".
    """

    line: bytes
    problem: str = ""


def look_at_all(errands: Sequence[Errand], timeout_s: float = LOOK_TIMEOUT_S) -> list[Answer]:
    """Do errands side by side and return their answers in order. Bounded by `timeout_s` for each round of a few."""
    if not errands:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(errands)), "tiercel-doctor") as pool:
        return list(pool.map(lambda errand: _send(errand, timeout_s), errands))


def _send(errand: Errand, timeout_s: float) -> Answer:
    command = [sys.executable, "-P", "-m", "tiercel.tune.doctor.looker"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        output, complaint = process.communicate(msgspec.json.encode(errand), timeout_s)
    except subprocess.TimeoutExpired as expired:
        _leave(process)
        told = expired.output if isinstance(expired.output, bytes) else b""
        return Answer(line=_last_line(told), problem=f"{describe(errand)} did not answer within {timeout_s:g} s")
    except BaseException:
        _leave(process)
        raise
    if process.returncode or not output:
        last = (complaint.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        reason = last.removeprefix("tiercel.errors.")
        return Answer(line=_last_line(output), problem=f"{describe(errand)} could not be looked at: {reason}")
    return Answer(line=_last_line(output))


def _leave(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and do not wait for one that the kernel holds."""
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    try:
        process.wait(_KILL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.returncode = -9  # it dies when its mount answers; nobody asks for it again


def _last_line(output: bytes) -> bytes:
    whole = output.rpartition(b"\n")[0]
    return whole.rpartition(b"\n")[2]


def describe(errand: Errand) -> str:
    """Name what an errand looks at."""
    match errand:
        case LookAtSystem():
            return "the machine"
        case LookAtSettings(file=file):
            return "the environment's settings" if file is None else f"the settings file {file}"
        case LookAtDirectory(path=path):
            return f"the directory {path}"
        case LookAtProcess(pid=pid):
            return f"process {pid}"
        case LookAtMachineFile(path=path):
            return f"the machine's file {path}"
