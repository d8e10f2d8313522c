"""The directory of an arena that outlives its process: names, locks, and what is done with what lies there.

    <cpu_arena_dir>/        of the owner's alone, on a tmpfs
        lock                locked with flock while a cache uses the directory; names its process
        arena               the slots; locked with flock while any process has it mapped
        arena.records       which block each slot holds (`arena_records`)

Processes that copy blocks by themselves (ranks, clients of a node) map the arena by the descriptor that the cache gave them. A
mapping keeps the open file behind that descriptor, and the file its lock, until the last of them is gone. So who opens the arena
anew and gets the lock knows that nobody else can write to a slot; before that nothing in it may be believed.

Memory that nobody asks for is not set aside: what cannot be taken over (another model, another block size, another format) is
removed, and said aloud. A cache that begins anew takes a new file; whoever has the old one mapped harms nobody.
"""

import fcntl
import logging
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from tiercel.config.mounts import ARENA_NAME, memory_place
from tiercel.config.paths import utf8_path
from tiercel.errors import ConfigError, FormatError
from tiercel.tiers.arena import MappedArena
from tiercel.tiers.arena_records import (
    HEADER_BYTES,
    ArenaHeader,
    ArenaRecords,
    parse_header,
    read_records,
    write_records,
)
from tiercel.tiers.arena_users import users_of
from tiercel.tiers.disk_directory import DirectoryLock
from tiercel.tiers.labels import RecoveredBlocks, nothing_recovered
from tiercel.tiers.memory import page_aligned_bytes

RECORDS_NAME = "arena.records"

_KEY = "cpu_arena_dir"
_LOOK_AGAIN_S = 0.01
_MODEL_ID_CHARACTERS = 400

_log = logging.getLogger("tiercel.tiers.host")


@dataclass(frozen=True, kw_only=True)
class ArenaOptions:
    """How an arena that outlives its process is opened.

    Attributes:
        directory: where it lies; made if it is missing.
        fingerprint: what must be equal for blocks to be exchangeable.
        model_id: name of the model, for whoever looks at the directory.
        num_slots: capacity in blocks.
        block_bytes: size of a block.
        hugepages: ask for huge pages.
        wait_s: how long to wait for processes that have the arena of an ended one still mapped.
    """

    directory: Path
    fingerprint: bytes
    num_slots: int
    block_bytes: int
    model_id: str = ""
    hugepages: bool = True
    wait_s: float = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptArena:
    """An arena that outlives its process, and what was found in it. Made by `open`; one host tier owns it.

    Attributes:
        arena: the memory.
        records: what its slots hold, kept up by the tier.
        recovered: what they held when it was opened.
        cold_reason: why nothing of what was there could be taken over; "" if it was, or if nothing was there.
        lock: the directory's.
    """

    arena: MappedArena
    records: ArenaRecords
    recovered: RecoveredBlocks
    cold_reason: str
    lock: DirectoryLock

    @classmethod
    def open(cls, options: ArenaOptions) -> Self:
        """Take over the arena that lies in a directory, or begin a new one.

        A larger capacity than before keeps every block; a smaller one drops those in slots that no longer exist.

        Raises:
            ConfigError: the directory is not on a tmpfs, is open to others, or cannot be used.
            DirectoryLockedError: another process uses it.
            OSError: memory or the file system failed.
        """
        directory = options.directory
        try:
            _make_private(directory)
            place = memory_place(_KEY, directory)
            lock = DirectoryLock(directory, _KEY)
        except OSError as error:
            raise ConfigError(
                f"{_KEY} = {utf8_path(directory)!r}: cannot be used ({error.strerror}); name a directory of yours"
            ) from error
        try:
            fd, recovered, cold_reason = _take_over(options)
            arena = MappedArena(fd, _arena_bytes(options), hugepages=options.hugepages and place.gives_huge_pages)
            try:
                records = ArenaRecords(directory / RECORDS_NAME)
            except BaseException:
                arena.close()
                raise
        except BaseException:
            lock.release()
            raise
        if cold_reason:
            _log.warning(
                "%s: what the host tier held is lost: %s", directory, cold_reason, extra={"event": "host_tier_cold"}
            )
        return cls(arena=arena, records=records, recovered=recovered, cold_reason=cold_reason, lock=lock)

    def close(self) -> None:
        """Let go of everything; what the slots hold stays. Once only."""
        self.records.close()
        self.arena.close()
        self.lock.release()


def _make_private(directory: Path) -> None:
    """Make a directory that only this user may enter. Raises ConfigError if another's or an open one is there already."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(
                f"{_KEY} = {utf8_path(directory)!r}: must be a directory of user {os.geteuid()} that nobody else may enter; "
                "chmod 700 it, or name another"
            ) from None


def _arena_bytes(options: ArenaOptions) -> int:
    return options.num_slots * page_aligned_bytes(options.block_bytes)


def _take_over(options: ArenaOptions) -> tuple[int, RecoveredBlocks, str]:
    """Return the arena's file, locked and with its records beside it, what it holds, and why that is not more."""
    try:
        fd = os.open(options.directory / ARENA_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return *_begin(options), ""
    try:
        _lock_arena(fd, options)
        blocks = _adopt(fd, options)
    except FormatError as error:
        os.close(fd)
        return *_begin(options), str(error)
    except BaseException:
        os.close(fd)
        raise
    return fd, blocks, ""


def _begin(options: ArenaOptions) -> tuple[int, RecoveredBlocks]:
    """Begin a new arena. The records go first and come last: without them an arena holds nothing."""
    directory = options.directory
    (directory / RECORDS_NAME).unlink(missing_ok=True)
    (directory / ARENA_NAME).unlink(missing_ok=True)
    fd = os.open(directory / ARENA_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, _arena_bytes(options))
        write_records(directory / RECORDS_NAME, _header(fd, options))
    except BaseException:
        os.close(fd)
        raise
    return fd, nothing_recovered()


def _lock_arena(fd: int, options: ArenaOptions) -> None:
    """Wait until nobody else has an arena mapped, and lock it. Raises FormatError if somebody still has after the wait."""
    stop_at = time.monotonic() + options.wait_s
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                _tell_wait(fd, options)
                told = True
            if time.monotonic() >= stop_at:
                raise FormatError(
                    f"a process that used it with the cache that ended still has it mapped after {options.wait_s:g} s"
                ) from None
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


def _tell_wait(fd: int, options: ArenaOptions) -> None:
    users = users_of(fd)
    _log.info(
        "%s: waiting up to %g s (cpu_arena_wait_s) until the processes that used the arena with the cache that ended let go of "
        "it: %s",
        options.directory,
        options.wait_s,
        ", ".join(f"process {process} ({name})" for process, name in users) or "none that this user can see",
        extra={"event": "arena_wait", "processes": [process for process, _ in users]},
    )


def _adopt(fd: int, options: ArenaOptions) -> RecoveredBlocks:
    """Return what a locked arena holds, and write that down for the capacity of now. Raises FormatError where it is no use."""
    path = options.directory / RECORDS_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FormatError("it has no records") from None
    header, wanted = parse_header(data[:HEADER_BYTES]), _header(fd, options)
    if header.arena_inode != wanted.arena_inode:
        raise FormatError("its records belong to another arena")
    if header.fingerprint != wanted.fingerprint:
        raise FormatError(f"it held blocks of another model ({header.model_id or header.fingerprint[:16]})")
    if (header.block_bytes, header.stride_bytes) != (wanted.block_bytes, wanted.stride_bytes):
        raise FormatError(f"it held blocks of {header.block_bytes} bytes, {options.block_bytes} are asked for")
    present = os.fstat(fd).st_size // wanted.stride_bytes
    blocks, num_damaged = read_records(data, header, num_slots=min(options.num_slots, present))
    if num_damaged:
        _log.warning(
            "%s: %d damaged records are left out",
            path,
            num_damaged,
            extra={"event": "arena_damaged", "records": num_damaged},
        )
    # The file is never shorter than its records say.
    os.ftruncate(fd, max(os.fstat(fd).st_size, _arena_bytes(options)))
    write_records(path, replace(wanted, seed=header.seed), blocks)
    os.ftruncate(fd, _arena_bytes(options))
    return blocks


def _header(fd: int, options: ArenaOptions) -> ArenaHeader:
    return ArenaHeader(
        fingerprint=options.fingerprint.hex(),
        block_bytes=options.block_bytes,
        stride_bytes=page_aligned_bytes(options.block_bytes),
        num_slots=options.num_slots,
        arena_inode=os.fstat(fd).st_ino,
        seed=secrets.randbits(63),
        model_id=options.model_id[:_MODEL_ID_CHARACTERS],
    )
