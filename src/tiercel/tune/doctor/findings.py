"""What doctor says: findings, their order, and what they come to as an exit code."""

import enum
from collections.abc import Iterable

import msgspec


class Severity(enum.StrEnum):
    """How much a finding matters, the most pressing first."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"
    OK = "ok"


SEVERITY_MEANINGS = {
    Severity.ERROR: "something does not work, or data or hits are being lost",
    Severity.WARNING: "it works, but slower or less safely than asked",
    Severity.ADVICE: "it works; a change would probably pay",
    Severity.OK: "looked at, and as it should be",
}


class Group(enum.StrEnum):
    """What a check is about."""

    FALLBACKS = "fallbacks"
    LIMITS = "limits"
    DIRECTORIES = "directories"
    FILESYSTEMS = "filesystems"
    SETTINGS = "settings"
    FAULTS = "faults of running caches"
    SPEED = "speed of running caches"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a check found.

    Attributes:
        check: name of the check; docs/doctor.md describes each.
        subject: what it was found in: "machine", "settings", a directory or "pid N".
        seen: what was seen, with its number.
        why: why it matters; "" where all is well.
        remedy: a command or setting; "" where all is well.
    """

    severity: Severity
    group: Group
    check: str
    subject: str
    seen: str
    why: str = ""
    remedy: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, most severe first; the form of `tiercel doctor --json`.

    Attributes:
        version: of this form; fields are only ever added under one version.
        counts: findings by severity.
    """

    version: int = 1
    tiercel: str
    counts: dict[str, int]
    findings: tuple[Finding, ...]

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 2 if there are errors, 1 if `strict` and there are warnings, else 0."""
        if self.counts[Severity.ERROR]:
            return 2
        return 1 if strict and self.counts[Severity.WARNING] else 0


def make_report(findings: Iterable[Finding], *, tiercel: str) -> Report:
    """Put findings in order: by severity, then as the table of checks has them."""
    severities = list(Severity)
    ordered = sorted(findings, key=lambda finding: severities.index(finding.severity))
    counts = {severity.value: sum(finding.severity is severity for finding in ordered) for severity in severities}
    return Report(tiercel=tiercel, counts=counts, findings=tuple(ordered))
