"""What a check is: a pure function over facts, with the words that explain it.

A check is declared by decorating the function that makes it; its docstring is its meaning in docs/doctor.md, its name with
dashes the check's name. What it yields is completed with the check's own reason and remedy.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tiercel.tune.doctor.facts import Facts
from tiercel.tune.doctor.findings import Finding, Group, Severity

MACHINE = "machine"
SETTINGS = "settings"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a check saw in one subject. remedy: "" for the check's own."""

    severity: Severity
    subject: str
    text: str
    remedy: str = ""


def error(subject: str, text: str, remedy: str = "") -> Seen:
    """Something does not work."""
    return Seen(severity=Severity.ERROR, subject=subject, text=text, remedy=remedy)


def warning(subject: str, text: str, remedy: str = "") -> Seen:
    """It works, but slower or less safely than asked."""
    return Seen(severity=Severity.WARNING, subject=subject, text=text, remedy=remedy)


def advice(subject: str, text: str, remedy: str = "") -> Seen:
    """It works; a change would probably pay."""
    return Seen(severity=Severity.ADVICE, subject=subject, text=text, remedy=remedy)


def fine(subject: str, text: str) -> Seen:
    """All is well, with the number that says so."""
    return Seen(severity=Severity.OK, subject=subject, text=text)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: stable; findings carry it.
        meaning: what is looked at, and when that is reported.
        why: why it matters.
        remedy: what to do, where a finding does not say it more exactly.
        look: yields nothing where the check does not apply.
    """

    name: str
    group: Group
    meaning: str
    why: str
    remedy: str
    look: Callable[[Facts], Iterable[Seen]]

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each subject that the check applies to."""
        for seen in self.look(facts):
            is_fine = seen.severity is Severity.OK
            yield Finding(
                severity=seen.severity,
                group=self.group,
                check=self.name,
                subject=seen.subject,
                seen=seen.text,
                why="" if is_fine else self.why,
                remedy="" if is_fine else seen.remedy or self.remedy,
            )


def check(group: Group, *, why: str, remedy: str) -> Callable[[Callable[[Facts], Iterable[Seen]]], Check]:
    """Make a check of a function; its docstring says what is looked at."""

    def declare(look: Callable[[Facts], Iterable[Seen]]) -> Check:
        meaning = " ".join((look.__doc__ or "").split())
        name = look.__name__.replace("_", "-")
        return Check(name=name, group=group, meaning=meaning, why=why, remedy=remedy, look=look)

    return declare
