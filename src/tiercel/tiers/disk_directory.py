"""The directories of a disk tier: names, manifests, locks and what is checked before anything is allocated.

    <dir>/tiercel-v1-<first 16 hex digits of the fingerprint>/
        manifest.json   what the files hold and which stripe of which set this is
        lock            locked with flock while a process uses the directory; names that process
        data-<i>.bin    the blocks of stripe i
        journal-<n>.log, checkpoint-<n>     in stripe 0 only

Another fingerprint or another format version is another folder beside this one: never read, never removed, said aloud.
"""

import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from tiercel.errors import ConfigError, DirectoryLockedError, FormatError

FORMAT_VERSION = 1

_log = logging.getLogger("tiercel.tiers.disk")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the files of one stripe hold. Equal in all stripes but for `stripe`."""

    format_version: int
    fingerprint: str
    block_bytes: int
    slot_bytes: int
    num_slots: int
    set_id: str
    """Drawn when the set of directories was created; tells it from every other set and from copies of older ones."""
    stripe: int
    num_stripes: int
    model_id: str = ""
    """For whoever looks at the directory; what counts is the fingerprint."""


class DirectoryLock:
    """An exclusive hold on a directory, by this process. The kernel drops it when the process dies, however it dies."""

    def __init__(self, folder: Path, key: str = "ssd_cache_dir") -> None:
        """Take the lock or raise DirectoryLockedError, naming the holder and the setting that the folder is of."""
        self._path = folder / "lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._path.read_text(errors="replace").strip()[:200] or "an unknown process"
            os.close(self._descriptor)
            raise DirectoryLockedError(
                f"{folder}: in use by {holder}; stop that process, or give this one another {key}"
            ) from error
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"process {os.getpid()}, since {started}\n".encode())

    @property
    def in_place(self) -> bool:
        """Whether the locked file is still the one that the path names. Raises OSError where the path cannot be looked up."""
        return os.path.samestat(os.fstat(self._descriptor), self._path.stat())

    def release(self) -> None:
        """Let go of the directory. Once only."""
        os.close(self._descriptor)


def holder_of(lock: Path) -> str:
    """Say who holds a lock file, without touching the lock: a try could make a starting process fail."""
    try:
        inode = lock.stat().st_ino
        held = any(
            " FLOCK " in line and line.split()[-3].rpartition(":")[2] == str(inode)
            for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()
        )
        return (lock.read_text(errors="replace").strip()[:200] or "an unknown process") if held else ""
    except FileNotFoundError:
        return ""


class StripeFolders:
    """One folder per directory, locked, with matching manifests."""

    def __init__(self, folders: list[Path], locks: list[DirectoryLock], manifest: Manifest) -> None:
        self.folders = folders
        self.manifest = manifest
        self._locks = locks

    @classmethod
    def open(
        cls, directories: Sequence[Path], *, fingerprint: bytes, model_id: str, block_bytes: int, slot_bytes: int
    ) -> Self:
        """Create or open the folders, lock them, and check that they belong together.

        Raises:
            ConfigError: a directory cannot be created or written.
            DirectoryLockedError: another process uses one of them.
            FormatError: a manifest is unreadable or contradicts what is asked for. Nothing was changed.
        """
        name = f"tiercel-v{FORMAT_VERSION}-{fingerprint.hex()[:16]}"
        locks: list[DirectoryLock] = []
        try:
            folders = []
            for directory in directories:
                folder = directory / name
                with _as_config_error(directory):
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what users wrote can be read from it
                    locks.append(DirectoryLock(folder))
                    _remove_unfinished(folder)
                folders.append(folder)
                _mention_others(directory, name)
            manifest = _common_manifest(folders, fingerprint.hex())
            if manifest is None:
                manifest = Manifest(
                    format_version=FORMAT_VERSION,
                    fingerprint=fingerprint.hex(),
                    block_bytes=block_bytes,
                    slot_bytes=slot_bytes,
                    num_slots=0,
                    set_id=secrets.token_hex(16),
                    stripe=0,
                    num_stripes=len(folders),
                    model_id=model_id,
                )
            elif (manifest.block_bytes, manifest.slot_bytes) != (block_bytes, slot_bytes):
                raise FormatError(
                    f"{folders[0]}: holds blocks of {manifest.block_bytes} bytes under the same fingerprint, "
                    f"{block_bytes} are asked for; remove the folder if it is of no use any more"
                )
        except BaseException:
            for lock in locks:
                lock.release()
            raise
        return cls(folders, locks, manifest)

    def data_paths(self) -> list[Path]:
        """The block file of each stripe."""
        return [folder / f"data-{stripe}.bin" for stripe, folder in enumerate(self.folders)]

    def check_space(self, num_slots: int) -> None:
        """Raise ConfigError if a filesystem lacks room for its stripes' files at this capacity."""
        wanted: dict[int, tuple[int, int, list[Path]]] = {}
        for stripe, path in enumerate(self.data_paths()):
            rows = -(-(num_slots - stripe) // len(self.folders))
            present = path.stat().st_blocks * 512 if path.exists() else 0
            missing = max(0, rows * self.manifest.slot_bytes - present)
            device = path.parent.stat().st_dev
            total, _, paths = wanted.get(device, (0, 0, []))
            wanted[device] = (total + missing, shutil.disk_usage(path.parent).free, [*paths, path.parent.parent])
        for missing, free, paths in wanted.values():
            if missing > free:
                places = ", ".join(str(path) for path in paths)
                raise ConfigError(
                    f"num_ssd_blocks = {num_slots}: needs {missing} more bytes in ssd_cache_dir = {places}, where "
                    f"{free} are free; lower num_ssd_blocks, or free space, or name a directory on a larger disk"
                )

    def fault(self) -> str:
        """Why what is written now would be lost at a restart, or "": a directory vanished, was replaced or is read-only."""
        for folder, lock in zip(self.folders, self._locks, strict=True):
            try:
                if not lock.in_place:
                    return f"{folder} was replaced by another directory"
            except OSError as error:
                return f"{folder} is gone ({error.strerror})"
            if not os.access(folder, os.W_OK):
                return f"{folder} cannot be written"
        return ""

    def save(self, num_slots: int) -> None:
        """Write the manifests of all stripes, durably, with this capacity. Other fields stay. Stripe 0 comes last."""
        for stripe, folder in reversed(list(enumerate(self.folders))):
            manifest = msgspec.structs.replace(self.manifest, num_slots=num_slots, stripe=stripe)
            temporary = folder / "manifest.json.tmp"
            with temporary.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(folder / "manifest.json")
            _sync_names(folder)
        self.manifest = msgspec.structs.replace(self.manifest, num_slots=num_slots)

    def close(self) -> None:
        """Release the locks. Once only."""
        for lock in self._locks:
            lock.release()


def read_manifest(folder: Path) -> Manifest | None:
    """Return a folder's manifest, or None if it has none.

    Raises:
        FormatError: it is not one that this version reads.
    """
    path = folder / "manifest.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(data)
        if "format_version" not in fields:
            raise ValueError("it names no format_version")
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise FormatError(
                f"{path}: has format version {version!r}, this version of Tiercel reads {FORMAT_VERSION}; "
                f"use the version that wrote it, or remove {folder}"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        raise FormatError(f"{path}: not a manifest ({error}); remove {folder} if it is of no use") from error


@contextmanager
def _as_config_error(directory: Path) -> Iterator[None]:
    """Turn the system's refusal of a directory into one that names the setting."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"ssd_cache_dir = {str(directory)!r}: cannot be used ({error.strerror}); "
            "name a directory that this user can write"
        ) from error


def _remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed had not given its name yet. The folder is locked, so nobody is at it now."""
    for path in (*folder.glob("*.tmp"), *folder.glob(".*.sock")):
        path.unlink()


def _sync_names(folder: Path) -> None:
    """Make the names in a folder durable: a power failure must not leave some stripes of a set without their manifest."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _common_manifest(folders: list[Path], fingerprint: str) -> Manifest | None:
    """Return what the manifests agree on, or None if there are none yet. Raises FormatError if they do not match."""
    manifests = [read_manifest(folder) for folder in folders]
    first = manifests[0]
    if first is None and all(manifest is None or manifest.num_slots == 0 for manifest in manifests):
        return None  # new, or a creation that did not get to its end
    for stripe, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        remedy = "give the same directories in the same order as when the cache was created, or remove the folder"
        if manifest is None or first is None:
            raise FormatError(f"{folder}: has no manifest, unlike another directory of the set; {remedy}")
        if manifest.fingerprint != fingerprint:
            raise FormatError(f"{folder}: belongs to fingerprint {manifest.fingerprint}, not {fingerprint}; remove it")
        if manifest.num_stripes != len(folders):
            raise FormatError(f"{folder}: is one of {manifest.num_stripes} directories, {len(folders)} given; {remedy}")
        if manifest.set_id != first.set_id:
            raise FormatError(f"{folder}: belongs to another set of directories than {folders[0]}; {remedy}")
        if manifest.stripe != stripe:
            raise FormatError(f"{folder}: is stripe {manifest.stripe} of its set, not {stripe}; {remedy}")
    return first


def _mention_others(directory: Path, name: str) -> None:
    """Log each folder that another fingerprint or format left in the directory."""
    for other in sorted(directory.glob("tiercel-v*")):
        if other.name == name or not other.is_dir():
            continue
        size = sum(file.stat().st_blocks * 512 for file in other.glob("*") if file.is_file())
        holder = holder_of(other / "lock")
        _log.warning(
            "%s holds a cache of another model or format (%d MiB); it is left alone. %s",
            other,
            size >> 20,
            f"It is in use by {holder}" if holder else f"To remove it: rm -r '{other}'",
            extra={"event": "other_cache_found", "path": str(other), "bytes": size},
        )
