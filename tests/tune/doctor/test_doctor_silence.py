"""What doctor must not complain about: things that look odd and are as they should be, and things it cannot know."""

import pytest
from msgspec.structs import replace

from tests.helpers import doctor_facts as made
from tests.helpers.doctor_cases import CASES
from tests.helpers.doctor_facts import CURVE, DISK, GIB, HEALTHY, HOST, MACHINE, PLACE, REPORT, quiet_metrics, snapshot
from tiercel.tune.doctor import Facts, Severity, examine
from tiercel.tune.doctor.facts import FolderFacts, SettingNote
from tiercel.tune.machine import DirectoryFigures


def _writing() -> Facts:
    return made.with_folder(holder="process 7, since today", torn_bytes=40)


def _two_models_in_use() -> Facts:
    used = replace(REPORT, holder="process 7, since today")
    other = replace(used, path="/cache/tiercel-v1-cdcd", fingerprint="cd" * 16)
    return made.with_directory(folders=(FolderFacts(report=used), FolderFacts(report=other)))


def _measured(*places: DirectoryFigures) -> Facts:
    return replace(HEALTHY, machine=replace(MACHINE, directories=places))


def _rate(place: DirectoryFigures, factor: float, path: str) -> DirectoryFigures:
    figures = tuple(
        replace(
            figure, bytes_per_s=replace(figure.bytes_per_s, value=figure.bytes_per_s.value * factor, low=1.0, high=1.0)
        )
        for figure in place.figures
    )
    return replace(place, path=path, figures=figures)


def _looked_at_once() -> Facts:
    running = snapshot(tickets={"running": 3})
    return replace(HEALTHY, processes=(replace(made.process(running), second=None),))


BUSY = quiet_metrics()
BUSY.observe_lookup(seconds=1e-5, num_tokens=16000, tokens_per_block=16, hits=[], num_pending=0, num_declined=0)

QUIET = {
    "a journal in use that ends in a record being written": _writing(),
    "two models that are both in use": _two_models_in_use(),
    "a cache in host memory alone": made.with_process(snapshot(tiers=(HOST,))),
    "a cache on disk alone": replace(made.with_process(snapshot(tiers=(DISK,))), gpu_cache_bytes=None, machine=None),
    "a curve of few blocks": made.with_process(
        snapshot(hit_curve=replace(CURVE, hit_rates=(0.1, 0.5, 0.9), num_blocks=100))
    ),
    "a low hit rate without a curve to compare": made.with_process(snapshot(BUSY, hit_curve=None)),
    "much written in the first minutes": made.with_process(
        snapshot(uptime_s=60.0, tiers=(HOST, replace(DISK, bytes_written=40 * GIB, write_seconds=30.0)))
    ),
    "another disk that is faster than this one": _measured(PLACE, _rate(PLACE, 10.0, "/other")),
    "few bytes at a low rate": made.with_process(
        snapshot(tiers=(HOST, replace(DISK, bytes_read=1 << 20, bytes_written=1 << 20)))
    ),
    "a stripe that holds no journal": made.with_folder(stripe=0, num_stripes=1, num_blocks=0),
    "a settings note that another check tells": made.with_settings_facts(
        notes=(SettingNote(kind="impossible", key="sizes", text="x", loud=True),)
    ),
    "a process looked at once": _looked_at_once(),
    "a disk tier that is off and relative": made.with_settings(enable_ssd=False, ssd_cache_dir="./x"),
    "threads asked for where io_uring is forbidden": replace(
        made.with_settings(ssd_io_engine="threads"), system=replace(made.SYSTEM, io_uring_error="EPERM")
    ),
    "small pages without a host tier": replace(
        made.with_settings(enable_cpu=False), system=replace(made.SYSTEM, private_huge_pages="never")
    ),
    "a disk that nobody can tell anything of": made.with_directory(
        rotational=None, scheduler="", read_ahead_kib=None, direct_io_error=None
    ),
}


@pytest.mark.parametrize("facts", QUIET.values(), ids=QUIET.keys())
def test_nothing_is_complained_about(facts: Facts) -> None:
    assert [finding for finding in examine(facts).findings if finding.severity is not Severity.OK] == []


def test_one_broken_thing_makes_one_complaint_at_most_two() -> None:
    """Whoever reads the report must not search for the cause among its echoes."""
    loud = {}
    for name, severity, text, facts in CASES:
        checks = {found.check for found in examine(facts).findings if found.severity in ("error", "warning")}
        if severity != "ok" and len(checks - {name}) > 1:
            loud[f"{name}: {text}"] = checks
    assert loud == {}


def test_a_write_rate_below_the_measured_one_is_told_as_that() -> None:
    slow = made.with_process(snapshot(tiers=(HOST, replace(DISK, write_seconds=500.0))))
    told = [found.seen for found in examine(slow).findings if found.severity is Severity.WARNING]
    assert len(told) == 1
    assert told[0].startswith("writes at 102.40 MiB/s")


@pytest.mark.parametrize(
    ("facts", "check"),
    [
        (made.with_process(made.counted(("errors", "DeadlineError", 5))), "deadlines"),
        (made.with_process(made.counted(("throttled", "budget", 5))), "write-budget"),
        (made.with_process(made.counted(("throttled", "demotion", 5))), "demotion"),
        (made.with_process(made.counted(("errors", "journal_put", 5))), "checkpoints"),
        (made.with_process(made.counted(("throttled", "disk-load", 5))), "queues"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_counter_is_told_by_one_check(facts: Facts, check: str) -> None:
    assert {found.check for found in examine(facts).findings if found.severity is not Severity.OK} == {check}


def test_a_host_tier_that_is_off_is_not_held_against_the_gpu() -> None:
    off = replace(made.with_settings(enable_cpu=False), processes=(), gpu_cache_bytes=100 * GIB)
    assert [found for found in examine(off).findings if found.check == "host-against-gpu"] == []
