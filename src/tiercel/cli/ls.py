"""`tiercel ls`: what lies in cache directories, in use or not."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.render import bytes_text, print_json, print_line, print_table, seconds_text

if TYPE_CHECKING:
    from tiercel.tiers.inspect import FolderReport

RUNS_SHOWN_MAX = 50


def ls(
    *directories: Path,
    keys: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """List what lies in cache directories: fingerprints, blocks, bytes, age, and who uses them.

    Args:
        directories: cache directories, or folders inside one; by default the current directory.
        keys: list the runs of blocks too.
        json: print JSON, one object per folder, in a list.
    """
    from tiercel.tiers.inspect import inspect_directory, inspect_runs

    places = directories or (Path(),)
    for place in places:
        if not place.is_dir():
            raise ValueError(f"{place} is not a directory")
    reports = [report for place in places for report in inspect_directory(place)]
    readable = [report.path for report in reports if keys and not report.problem]
    runs = {path: inspect_runs(Path(path)) for path in readable}
    if json:
        print_json([{"folder": report, "runs": runs.get(report.path, [])} if keys else report for report in reports])
        return
    if not reports:
        print_line(f"no cache in {', '.join(str(place) for place in places)}")
        return
    print_folders(reports)
    for path, found in runs.items():
        title = f"{path}: the longest {RUNS_SHOWN_MAX} of {len(found)} runs; --json lists all"
        rows = ((str(run.num_blocks), run.parent_key, run.last_key) for run in found[:RUNS_SHOWN_MAX])
        print_table(title if len(found) > RUNS_SHOWN_MAX else path, ("blocks", "after key", "last key"), rows)


def print_folders(reports: "list[FolderReport]") -> None:
    """Print one row per folder, and what is wrong or in use below it."""
    columns = ("folder", "model", "blocks", "slots", "stored", "on disk", "changed", "in use by")
    print_table("", columns, map(_row, reports))
    for report in reports:
        if report.problem:
            print_line(f"problem: {report.path}: {report.problem}")
        elif report.torn_bytes or report.corrupt_records:
            print_line(
                f"note: {report.path}: {report.torn_bytes} torn bytes at the end of the journal and {report.corrupt_records} "
                "damaged records; the next start cuts and skips them"
            )


def _row(report: "FolderReport") -> tuple[str, ...]:
    stripe = f" (stripe {report.stripe} of {report.num_stripes})" if report.num_stripes > 1 else ""
    is_first = report.stripe == 0
    return (
        report.path + stripe,
        report.model_id,
        str(report.num_blocks) if is_first else "-",
        str(report.num_slots),
        bytes_text(report.stored_bytes) if is_first else "-",
        bytes_text(report.file_bytes),
        f"{seconds_text(max(0.0, time.time() - report.modified_at))} ago" if report.modified_at else "-",
        report.holder or ("-" if report.problem else "nobody"),
    )
