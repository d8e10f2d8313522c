"""Doctor's checks, one by one, against made-up facts: each sees what it is for, and nothing on a healthy machine."""

import re
from pathlib import Path

import pytest

from tests.helpers.doctor_cases import CASES, Case
from tests.helpers.doctor_facts import HEALTHY
from tiercel.tune.doctor import Facts, Severity, examine
from tiercel.tune.doctor.reference import doctor_reference
from tiercel.tune.doctor.table import CHECKS

ROOT = Path(__file__).parents[3]
BY_NAME = {check.name: check for check in CHECKS}


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case[0]}-{case[1]}" for number, case in enumerate(CASES)])
def test_a_check_sees_what_it_is_for(case: Case) -> None:
    name, severity, text, facts = case
    found = [finding for finding in BY_NAME[name].run(facts) if text in f"{finding.seen} {finding.remedy}"]
    assert [finding.severity for finding in found] == [severity], list(BY_NAME[name].run(facts))
    (finding,) = found
    assert finding.subject
    assert bool(finding.why) is bool(finding.remedy) is (severity != "ok")


def test_a_healthy_machine_has_nothing_but_what_is_as_it_should_be() -> None:
    report = examine(HEALTHY)
    assert [finding for finding in report.findings if finding.severity is not Severity.OK] == []
    assert report.exit_code(strict=True) == 0
    assert report.counts["ok"] > 40


def test_every_check_has_a_case_in_which_it_complains() -> None:
    complaining = {name for name, severity, _, _ in CASES if severity != "ok"}
    assert complaining == set(BY_NAME)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_check_without_facts_says_nothing(check: object) -> None:
    assert list(BY_NAME[check.name].run(Facts(tiercel="0.1.0"))) == []  # type: ignore[attr-defined]


def test_names_of_checks_are_unique_and_each_is_explained() -> None:
    assert len(BY_NAME) == len(CHECKS)
    for check in CHECKS:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", check.name)
        assert check.meaning.endswith(".")
        assert check.why.endswith(".")
        assert check.remedy


def test_the_page_is_what_the_table_says() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert page == doctor_reference(), "python -m tiercel.tune.doctor.reference > docs/doctor.md"


def test_the_most_severe_comes_first_and_sets_the_exit_code() -> None:
    kinds = {
        severity: next(facts for _, kind, _, facts in CASES if kind == severity) for severity in ("error", "warning")
    }
    report = examine(kinds["error"])
    order = list(Severity)
    positions = [order.index(finding.severity) for finding in report.findings]
    assert positions == sorted(positions)
    assert report.findings[0].severity is Severity.ERROR
    assert (report.exit_code(), report.exit_code(strict=True)) == (2, 2)
    only_warnings = next(
        report for _, kind, _, facts in CASES if kind == "warning" and not (report := examine(facts)).counts["error"]
    )
    assert (only_warnings.exit_code(), only_warnings.exit_code(strict=True)) == (0, 1)
