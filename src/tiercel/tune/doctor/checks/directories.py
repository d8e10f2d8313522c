"""Checks: cache directories and what lies in them."""

import re
from collections.abc import Iterator
from pathlib import Path

from tiercel.config import format_bytes, parse_size
from tiercel.tiers.disk_directory import FORMAT_VERSION
from tiercel.tune.doctor.check import Seen, advice, check, error, fine, warning
from tiercel.tune.doctor.facts import DirectoryFacts, Facts, FolderFacts
from tiercel.tune.doctor.findings import Group

_FULL_SHARE = 0.02
_FREE_INODES_MIN = 64
_JOURNAL_BYTES = 64 << 20
_JOURNAL_FACTOR = 4
_FORMAT_OF_NAME = re.compile(r"tiercel-v(\d+)-")


def _folders(facts: Facts) -> Iterator[tuple[DirectoryFacts, FolderFacts]]:
    for directory in facts.readable_directories:
        for folder in directory.folders:
            yield directory, folder


def _other_format(folder: FolderFacts) -> bool:
    found = _FORMAT_OF_NAME.match(Path(folder.report.path).name)
    return found is not None and int(found[1]) != FORMAT_VERSION


@check(
    Group.DIRECTORIES,
    why="A cache that cannot reach its directory does not open; one that runs on it waits for its device.",
    remedy="mkdir -p it, mount its disk, or give the cache's user access; then run doctor again",
)
def directory(facts: Facts) -> Iterator[Seen]:
    """Whether each directory is there, is one, may be entered and answers in time; a warning if only its journals take longer.
    One that the settings name need not exist: the cache makes it."""
    made_when_opened = set() if facts.settings is None else set(facts.settings.directories)
    for found in facts.directories:
        if found.problem:
            yield error(found.path, found.problem)
        elif not found.is_complete:
            yield warning(
                found.path, "is there, but what lies in it could not be read in time", "tiercel ls it; --timeout-s 60"
            )
        elif found.exists:
            yield fine(found.path, f"{len(found.folders)} folders")
        elif found.path in made_when_opened:
            yield fine(found.path, "is not there yet; the cache makes it")
        else:
            yield error(found.path, "there is no such directory")


@check(
    Group.DIRECTORIES,
    why="Stores to it fail, or the cache does not open; what lies there can still be read.",
    remedy="mount -o remount,rw, chown it to the cache's user, or free space; dmesg says if the kernel made it read-only",
)
def writable(facts: Facts) -> Iterator[Seen]:
    """Whether files can be made in each directory by the user who runs doctor, tried with a file that never gets a name."""
    for found in facts.readable_directories:
        if found.write_error:
            yield error(found.path, f"no file can be made there: {found.write_error}")
        else:
            yield fine(found.path, "can be written")


@check(
    Group.DIRECTORIES,
    why="When the journal's filesystem is full, stores end with no_space and what is stored is not warm after a restart.",
    remedy="free space there, or lower num_ssd_blocks",
)
def free_space(facts: Facts) -> Iterator[Seen]:
    """Whether less than 2 % of the filesystem is free. Whether the settings fit is `fits`."""
    for found in facts.readable_directories:
        if not found.total_bytes:
            continue
        seen = f"{format_bytes(found.free_bytes)} of {format_bytes(found.total_bytes)} free"
        is_full = found.free_bytes < _FULL_SHARE * found.total_bytes
        yield warning(found.path, seen) if is_full else fine(found.path, seen)


@check(
    Group.DIRECTORIES,
    why="A checkpoint and a new segment of the journal are new files; without inodes none can be made.",
    remedy="remove small files there, or make the filesystem anew with more inodes (mkfs.ext4 -i 65536)",
)
def inodes(facts: Facts) -> Iterator[Seen]:
    """Whether the filesystem has less than 64 inodes left. Filesystems without a fixed number are left out."""
    for found in facts.readable_directories:
        if found.total_inodes and found.free_inodes < _FREE_INODES_MIN:
            yield error(found.path, f"{found.free_inodes} of {found.total_inodes} inodes free")
        elif found.total_inodes:
            yield fine(found.path, f"{found.free_inodes} inodes free")


@check(
    Group.DIRECTORIES,
    why="A second process on a directory gets DirectoryLockedError. A killed owner's lock is dropped by the kernel: nothing "
    "has to be removed, and the next start replays the journal.",
    remedy="start the engine again; nothing has to be repaired",
)
def owner(facts: Facts) -> Iterator[Seen]:
    """Who holds each folder; advice where its last owner was killed and nobody took over."""
    for _, folder in _folders(facts):
        if folder.was_killed:
            yield advice(folder.report.path, "its last owner ended without closing it, and nobody holds it now")
        elif not folder.report.problem:
            yield fine(folder.report.path, f"in use by {folder.report.holder or 'nobody'}")


@check(
    Group.DIRECTORIES,
    why="A folder that cannot be read holds no hits and takes its space all the same.",
    remedy="use the version that wrote it, or remove the folder",
)
def format_version(facts: Facts) -> Iterator[Seen]:
    """Whether this version reads each folder's manifest and journal; folders of another format version are named as that."""
    for _, folder in _folders(facts):
        report = folder.report
        if _other_format(folder):
            size, own = format_bytes(report.file_bytes), f"this version writes v{FORMAT_VERSION}"
            remedy = f"rm -r '{report.path}', or use the version that wrote it"
            yield warning(report.path, f"is of another format ({own}) and takes {size}", remedy)
        elif report.problem:
            yield error(report.path, report.problem)
        else:
            yield fine(
                report.path, f"{report.num_blocks} of {report.num_slots} blocks of {report.model_id or 'a model'}"
            )


@check(
    Group.DIRECTORIES,
    why="Blocks of another model, weights epoch or block size are never read by this one, and take space until removed.",
    remedy="rm -r the folder once no engine uses that model",
)
def other_models(facts: Facts) -> Iterator[Seen]:
    """Folders that nobody uses beside one that is in use or newer, of another fingerprint."""
    for found in facts.readable_directories:
        readable = [folder.report for folder in found.folders if not folder.report.problem]
        if len({report.fingerprint for report in readable}) < 2:
            continue
        current = max(readable, key=lambda report: (bool(report.holder), report.modified_at))
        for report in readable:
            if report.fingerprint != current.fingerprint and not report.holder:
                beside = f"beside {current.model_id or current.fingerprint[:16]}"
                seen = (
                    f"holds {report.model_id or report.fingerprint[:16]}, {format_bytes(report.file_bytes)}, {beside}"
                )
                yield advice(report.path, seen, f"rm -r '{report.path}' once no engine uses that model")


@check(
    Group.DIRECTORIES,
    why="A torn tail is what a kill leaves, and costs the last blocks. Damaged records inside mean a disk or memory that lies.",
    remedy="smartctl -a DEVICE and dmesg; replace the disk if it reports errors",
)
def damaged_journal(facts: Facts) -> Iterator[Seen]:
    """Records of a journal that recovery will cut off (advice) or step over (a warning), in folders that nobody holds: a journal
    in use may end in a record that is just being written."""
    for _, folder in _folders(facts):
        report = folder.report
        if report.problem or report.holder:
            continue
        if report.corrupt_records:
            yield warning(report.path, f"{report.corrupt_records} damaged records in the journal")
        elif report.torn_bytes:
            yield advice(
                report.path, f"the journal ends in {report.torn_bytes} torn bytes", "start the engine: it cuts them"
            )
        elif report.stripe == 0:
            yield fine(report.path, "no torn or damaged record")


@check(
    Group.DIRECTORIES,
    why="A journal that is never replaced by a checkpoint fills its disk, and every start replays all of it.",
    remedy="look at the log for the reason why checkpoints fail; free space on the journal's filesystem",
)
def journal_growth(facts: Facts) -> Iterator[Seen]:
    """Whether a journal is more than four times `journal_checkpoint_bytes` long (64 MiB where the settings are not known)."""
    wanted = facts.setting("journal_checkpoint_bytes")
    limit = parse_size("journal_checkpoint_bytes", wanted) if isinstance(wanted, str) else wanted or _JOURNAL_BYTES
    for _, folder in _folders(facts):
        seen = f"{format_bytes(folder.journal_bytes)} of journal since the last checkpoint"
        if folder.journal_bytes > _JOURNAL_FACTOR * limit:
            yield warning(folder.report.path, f"{seen}, which is due every {format_bytes(int(limit))}")
        elif folder.journal_bytes:
            yield fine(folder.report.path, seen)


@check(
    Group.DIRECTORIES,
    why="A set of directories is striped and opens only whole, in the order in which it was made.",
    remedy="name the same directories in the same order as when the cache was created, or remove the folder from all of them",
)
def stripes(facts: Facts) -> Iterator[Seen]:
    """Whether folders of the settings' directories say that they are the stripe, of as many, that the settings make them."""
    places = () if facts.settings is None else facts.settings.directories
    by_path = {found.path: found for found in facts.readable_directories}
    for number, path in enumerate(places):
        for folder in by_path[path].folders if path in by_path else ():
            report = folder.report
            if report.problem or (report.stripe, report.num_stripes) == (number, len(places)):
                continue
            is_there = f"is stripe {report.stripe} of {report.num_stripes}"
            yield error(report.path, f"{is_there}, the settings make it {number} of {len(places)}")
