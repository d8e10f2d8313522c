"""From what was asked to a report: facts are collected in two rounds, then every check of the table runs over them.

round 1   the machine, the settings, every process asked for
round 2   directories: those named, those of the settings, those of the processes that answered
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from tiercel import __version__
from tiercel.errors import FormatError
from tiercel.tune.doctor.errands import (
    Errand,
    LookAtDirectory,
    LookAtMachineFile,
    LookAtProcess,
    LookAtSettings,
    LookAtSystem,
)
from tiercel.tune.doctor.facts import DirectoryFacts, Facts, ProcessFacts, SettingsFacts, SystemFacts
from tiercel.tune.doctor.findings import Report, make_report
from tiercel.tune.doctor.looking import LOOK_TIMEOUT_S, Answer, look_at_all
from tiercel.tune.doctor.process import pid_of, sockets
from tiercel.tune.doctor.table import CHECKS
from tiercel.tune.machine import Machine

_FactsT = TypeVar("_FactsT", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to look at.

    Attributes:
        config: a settings file; None for the environment's settings.
        model: a model's config.json or folder, to know sizes.
        pids: processes; with `all_processes` every running cache of this user too.
        directories: cache directories.
        machine: a file of `tiercel probe`.
        gpu_cache_bytes, drive_writes_per_day: as of `Facts`.
        timeout_s: longest wait for each look.
    """

    config: Path | None = None
    model: Path | None = None
    pids: tuple[int, ...] = ()
    all_processes: bool = False
    directories: tuple[Path, ...] = ()
    machine: Path | None = None
    gpu_cache_bytes: int | None = None
    drive_writes_per_day: float = 1.0
    timeout_s: float = LOOK_TIMEOUT_S


def diagnose(asked: Asked) -> Report:
    """Look at what was asked for and report what was found. Changes nothing; bounded in time.

    Raises:
        FormatError: the machine's file is none, or cannot be read.
        OSError: no process can be started.
    """
    return examine(collect(asked))


def examine(facts: Facts) -> Report:
    """Run every check over facts."""
    return make_report((finding for check in CHECKS for finding in check.run(facts)), tiercel=facts.tiercel)


def collect(asked: Asked) -> Facts:
    """Collect the facts. Raises as `diagnose` does."""
    machine = None if asked.machine is None else _read_machine(asked.machine, asked.timeout_s)
    processes = _process_errands(asked)
    asks_nothing_else = not (processes or asked.directories)
    wants_settings = asked.config is not None or asked.model is not None or asks_nothing_else
    settings = LookAtSettings(file=_text(asked.config), model=_text(asked.model))
    errands: list[Errand] = [LookAtSystem(), *([settings] if wants_settings else []), *processes]
    answers = look_at_all(errands, asked.timeout_s)
    told = _Told()
    system = told.take(answers[0], SystemFacts)
    found = told.take(answers[1], SettingsFacts) if wants_settings else None
    if wants_settings and found is None:
        found = SettingsFacts(source=str(asked.config), problem=told.problems.pop())
    seen = [
        told.take(answer, ProcessFacts) or ProcessFacts(pid=errand.pid, state="?", problem=told.problems.pop())
        for errand, answer in zip(processes, answers[len(errands) - len(processes) :], strict=True)
    ]
    seen = [process for process in seen if process.pid in asked.pids or not process.has_ended]
    named = [*map(str, asked.directories), *(found.directories if found else ())]
    places = dict.fromkeys(
        str(Path(path).absolute()) for path in (*named, *(path for process in seen for path in process.directories))
    )
    return Facts(
        tiercel=__version__,
        system=system,
        settings=found,
        processes=tuple(seen),
        directories=tuple(told.take_directories(places, asked.timeout_s)),
        problems=tuple(told.problems),
        gpu_cache_bytes=asked.gpu_cache_bytes,
        drive_writes_per_day=asked.drive_writes_per_day,
        machine=machine,
        measured_age_s=0.0 if machine is None else time.time() - machine.measured_at,
    )


def _process_errands(asked: Asked) -> list[LookAtProcess]:
    errands: list[LookAtProcess] = []
    for pid in asked.pids:
        found = sockets(pid)
        errands += [LookAtProcess(pid=pid, socket=str(path)) for path in found]
        if not found:
            errands.append(LookAtProcess(pid=pid, socket=None))
    if asked.all_processes:
        alive = (path for path in sockets() if Path("/proc", str(pid_of(path))).exists())
        errands += [
            LookAtProcess(pid=pid_of(path), socket=str(path)) for path in alive if pid_of(path) not in asked.pids
        ]
    return errands


def _read_machine(path: Path, timeout_s: float) -> Machine:
    (answer,) = look_at_all([LookAtMachineFile(path=str(path))], timeout_s)
    if answer.problem:
        raise FormatError(answer.problem)
    return msgspec.json.decode(answer.line, type=Machine)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@dataclass(kw_only=True)
class _Told:
    """Turns answers into facts and keeps what could not be looked at."""

    problems: list[str] = field(default_factory=list)

    def take(self, answer: Answer, kind: type[_FactsT]) -> _FactsT | None:
        """Return the facts of an answer; None, with a problem noted, if there are none."""
        if answer.problem:
            self.problems.append(answer.problem)
        return msgspec.json.decode(answer.line, type=kind) if answer.line else None

    def take_directories(self, places: Iterable[str], timeout_s: float) -> list[DirectoryFacts]:
        """Look at directories; one that does not answer is a fact, too."""
        paths = list(places)
        facts = []
        for path, answer in zip(
            paths, look_at_all([LookAtDirectory(path=path) for path in paths], timeout_s), strict=True
        ):
            found = self.take(answer, DirectoryFacts)
            if found is None:
                found = DirectoryFacts(path=path, problem=self.problems.pop())
            elif answer.problem:
                self.problems.pop()  # the facts say by themselves that they are not complete
            facts.append(found)
        return facts
