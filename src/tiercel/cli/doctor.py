"""`tiercel doctor`: what is wrong or slow here, and what to do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.render import print_json, print_line

if TYPE_CHECKING:
    from tiercel.tune.doctor import Finding, Report

_TIMEOUT_S_MAX = 3600.0


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What to look at, and how to tell.

    Attributes:
        config: a settings file, YAML, JSON or TOML.
        model: a model's config.json, or its folder, to know sizes in bytes.
        pid: a process with a running cache; may be given several times.
        all: every running cache of this user.
        directory: a cache directory; may be given several times.
        machine: what tiercel probe measured.
        gpu_memory: KV memory of the engine's GPUs, such as 48GiB.
        drive_writes_per_day: endurance of the disks, in their own size a day.
        timeout_s: longest wait for each look, in seconds.
        verbose: print what is as it should be, too.
        strict: exit with 1 if there are warnings.
        json: print the whole report as JSON.
    """

    config: Path | None = None
    model: Path | None = None
    pid: tuple[int, ...] = ()
    all: bool = False
    directory: tuple[Path, ...] = ()
    machine: Path | None = None
    gpu_memory: str | None = None
    drive_writes_per_day: float = 1.0
    timeout_s: float = 8.0
    verbose: bool = False
    strict: bool = False
    json: bool = False


_DEFAULTS = DoctorOptions()


def doctor(*, options: Annotated[DoctorOptions, Parameter(name="*", negative="")] = _DEFAULTS) -> int:
    """Say what is wrong or slow here, and what to do about it. Changes nothing.

    Without options: this machine and every running cache of this user.

    Returns:
        2 if there are errors, 1 if there are warnings and `strict` is set, else 0.
    """
    from tiercel.config import parse_size
    from tiercel.tune.doctor import Asked, diagnose

    if not 0 < options.timeout_s <= _TIMEOUT_S_MAX:
        raise ValueError(f"--timeout-s {options.timeout_s:g}: must be above 0 and at most {_TIMEOUT_S_MAX:g} seconds")
    if not 0 < options.drive_writes_per_day < math.inf:
        raise ValueError(f"--drive-writes-per-day {options.drive_writes_per_day:g}: must be positive")
    named = (options.config, options.model, *options.pid, *options.directory)
    report = diagnose(
        Asked(
            config=options.config,
            model=options.model,
            pids=options.pid,
            all_processes=options.all or not any(thing is not None for thing in named),
            directories=options.directory,
            machine=options.machine,
            gpu_cache_bytes=None if options.gpu_memory is None else parse_size("--gpu-memory", options.gpu_memory),
            drive_writes_per_day=options.drive_writes_per_day,
            timeout_s=options.timeout_s,
        )
    )
    if options.json:
        print_json(report)
    else:
        print_report(report, verbose=options.verbose)
    return report.exit_code(strict=options.strict)


def print_report(report: "Report", *, verbose: bool = False) -> None:
    """Print findings by severity and, below that, by check, with reason and remedy once for all subjects of a check."""
    for severity, found in groupby(report.findings, key=lambda finding: finding.severity):
        if severity != "ok":
            print_line(f"{severity.value.upper()}")
            for _, alike in groupby(found, key=lambda finding: finding.check):
                _print_alike(list(alike))
            print_line("")
        elif verbose:
            print_line("OK")
            for finding in found:
                print_line(f"  {finding.check}: {finding.subject}: {finding.seen}")
            print_line("")
    print_line(", ".join(f"{count} {severity}" for severity, count in report.counts.items()))


def _print_alike(findings: "Sequence[Finding]") -> None:
    first = findings[0]
    print_line(f"  {first.check}")
    for finding in findings:
        print_line(f"    {finding.subject}: {finding.seen}")
    print_line(f"    why: {first.why}")
    for remedy in dict.fromkeys(finding.remedy for finding in findings):
        print_line(f"    do:  {remedy}")
