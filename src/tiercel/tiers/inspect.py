"""What a cache's directory holds, read without a lock and without changing a byte: the disk tier's, or the host tier's arena.

For `tiercel ls` and `tiercel stats` on a directory that may be in use. The numbers are those of the journal, or of the arena's
records: a block is counted if it was recorded, and of the disk tier's only a read would prove its bytes.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.config.paths import utf8_path
from tiercel.errors import FormatError
from tiercel.tiers.arena_directory import RECORDS_NAME
from tiercel.tiers.arena_records import HEADER_BYTES, ArenaHeader, parse_header, read_records
from tiercel.tiers.disk_directory import Manifest, holder_of, read_manifest
from tiercel.tiers.labels import RecoveredBlocks

FOLDER_PATTERN = "tiercel-v*"


class FolderReport(msgspec.Struct, frozen=True, kw_only=True):
    """One folder of a cache directory: the blocks of one fingerprint, or one stripe of them; or an arena's directory.

    Attributes:
        fingerprint: in hexadecimal; "" if the manifest cannot be read.
        num_blocks: recorded blocks of the whole set; 0 in stripes other than the first, which has no journal.
        stored_bytes: their payload.
        file_bytes: what the folder takes on the disk.
        modified_at: last change of any file, in seconds since the epoch.
        torn_bytes, corrupt_records: what recovery will cut off or step over.
        holder: who uses the folder, in words; "" if nobody does.
        problem: why the folder cannot be read, or "".
    """

    path: str
    fingerprint: str = ""
    model_id: str = ""
    block_bytes: int = 0
    num_slots: int = 0
    stripe: int = 0
    num_stripes: int = 1
    num_blocks: int = 0
    stored_bytes: int = 0
    file_bytes: int = 0
    modified_at: float = 0.0
    torn_bytes: int = 0
    corrupt_records: int = 0
    holder: str = ""
    problem: str = ""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive stored blocks without a fork: the key before the first one, the last one's key, how many."""

    parent_key: str
    last_key: str
    num_blocks: int


def inspect_directory(directory: Path) -> list[FolderReport]:
    """Report on every folder of a cache directory, or on the folder itself if it is one, and on the arena that lies there.

    Raises:
        OSError: the directory cannot be listed.
    """
    reports = [_inspect_folder(folder) for folder in folders_in(directory)]
    return [*reports, _inspect_arena(directory)] if (directory / RECORDS_NAME).exists() else reports


def folders_in(directory: Path) -> list[Path]:
    """Return the folders of a cache directory by name, or the directory itself if it is such a folder.

    Raises:
        OSError: the directory cannot be listed.
    """
    if (directory / "manifest.json").exists():
        return [directory]
    return sorted(path for path in directory.iterdir() if path.match(FOLDER_PATTERN) and path.is_dir())


def inspect_runs(folder: Path) -> list[RunReport]:
    """Report the runs of blocks that a folder's journal, or an arena's records, name, longest first.

    Raises:
        FormatError: the folder's manifest is missing or not one that this version reads.
        OSError: the journal cannot be read.
    """
    if (folder / RECORDS_NAME).exists():
        recovered: RecoveredBlocks | _native.Recovered = _read_arena(folder)[1]
    else:
        manifest = read_manifest(folder)
        if manifest is None:
            raise FormatError(f"{folder}: has no manifest")
        recovered = _replay(folder, manifest)
    keys = dict.fromkeys(_rows(recovered.keys))
    children: dict[bytes, dict[bytes, None]] = {}  # dicts as ordered sets: a key may be recorded twice
    for parent, key in zip(_rows(recovered.parents), _rows(recovered.keys), strict=True):
        children.setdefault(parent, {})[key] = None
    runs: list[RunReport] = []
    for parent, first_keys in children.items():
        if parent in keys and len(first_keys) == 1:
            continue  # inside the run that its parent belongs to
        for first in first_keys:
            last, length = first, 1
            while len(following := children.get(last, {})) == 1 and length < len(keys):
                last, length = next(iter(following)), length + 1
            runs.append(RunReport(parent_key=parent.hex(), last_key=last.hex(), num_blocks=length))
    return sorted(runs, key=lambda run: (-run.num_blocks, run.last_key))


def _rows(names: NDArray[np.uint8]) -> Iterator[bytes]:
    return (row.tobytes() for row in names)


def _replay(folder: Path, manifest: Manifest) -> _native.Recovered:
    return _native.replay_journal(utf8_path(folder), num_slots=manifest.num_slots)


def _read_arena(directory: Path) -> tuple[ArenaHeader, RecoveredBlocks, int]:
    """Return an arena's header, its blocks, and how many records are damaged. Raises FormatError or OSError."""
    data = (directory / RECORDS_NAME).read_bytes()
    header = parse_header(data[:HEADER_BYTES])
    return header, *read_records(data, header, num_slots=header.num_slots)


def _inspect_arena(directory: Path) -> FolderReport:
    report = _seen_from_outside(directory)
    if report.problem:
        return report
    try:
        header, blocks, num_damaged = _read_arena(directory)
    except (FormatError, OSError) as error:
        return msgspec.structs.replace(report, problem=f"the arena cannot be read: {error}")
    return msgspec.structs.replace(
        report,
        fingerprint=header.fingerprint,
        model_id=header.model_id,
        block_bytes=header.block_bytes,
        num_slots=header.num_slots,
        num_blocks=len(blocks.slots),
        stored_bytes=len(blocks.slots) * header.block_bytes,
        corrupt_records=num_damaged,
    )


def _seen_from_outside(folder: Path) -> FolderReport:
    """Report what needs no understanding of what lies in a folder."""
    try:
        files = [path.stat() for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        return FolderReport(path=str(folder), problem=f"cannot be read ({error.strerror})")
    return FolderReport(
        path=str(folder),
        file_bytes=sum(found.st_blocks * 512 for found in files),
        modified_at=max((found.st_mtime for found in files), default=0.0),
        holder=holder_of(folder / "lock"),
    )


def _inspect_folder(folder: Path) -> FolderReport:
    report = _seen_from_outside(folder)
    if report.problem:
        return report
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return msgspec.structs.replace(report, problem="has no manifest")
        recovered = _replay(folder, manifest)
    except (FormatError, OSError, UnicodeError) as error:  # the last: a path that no native code takes
        return msgspec.structs.replace(report, problem=str(error))
    num_blocks = len(recovered.slots)
    return msgspec.structs.replace(
        report,
        fingerprint=manifest.fingerprint,
        model_id=manifest.model_id,
        block_bytes=manifest.block_bytes,
        num_slots=manifest.num_slots,
        stripe=manifest.stripe,
        num_stripes=manifest.num_stripes,
        num_blocks=num_blocks,
        stored_bytes=num_blocks * manifest.block_bytes,
        torn_bytes=recovered.torn_bytes,
        corrupt_records=recovered.corrupt_records,
    )
