"""Everything that checks look at: collected once, frozen, serialisable.

Collectors run in processes of their own (`looking`), so all of this travels as JSON. A check never asks the machine
itself: whatever can be wrong can be written down here, and so be tested on a machine where nothing is.
"""

import msgspec

from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tiers.inspect import FolderReport
from tiercel.tune.machine import Machine


class SystemFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the limits of a process started as this one was.

    Attributes:
        kernel: release.
        num_cores: cores that the process may use; `cpu_quota_cores` what its control group gives it, None for all.
        numa_nodes: nodes with memory, and `numa_nodes_allowed` those that the process may allocate on.
        memory_bytes: what can still be taken, `memory_limited_by` what limits it.
        io_uring_built: whether this build has it; `io_uring_error` is how the kernel refuses, "" if it does not.
        io_uring_disabled: kernel.io_uring_disabled, None if there is no such setting.
        processor_features: those with a fast path here, and whether they are used.
        private_huge_pages, shared_huge_pages: the kernel's choices in transparent_hugepage/enabled and shmem_enabled, "" if there
            is none.
        huge_pages_free: reserved pages that nobody uses, of `huge_page_bytes` each.
        memlock_bytes, open_files, address_space_bytes: soft limits, None for none.
        memlock_applies: whether the process is kept to that limit: CAP_IPC_LOCK lifts it.
        memfd_error: why shared memory cannot be made, "" if it can.
        shm_bytes: size of /dev/shm, None if there is none.
        num_gpus: GPUs of NVIDIA that the kernel shows; `cuda_driver` is "" or why its library does not load.
    """

    kernel: str
    num_cores: int
    cpu_quota_cores: float | None = None
    numa_nodes: int = 1
    numa_nodes_allowed: int = 1
    memory_bytes: int
    memory_limited_by: str = ""
    io_uring_built: bool = True
    io_uring_error: str = ""
    io_uring_disabled: int | None = None
    processor_features: dict[str, bool] = {}
    private_huge_pages: str = ""
    shared_huge_pages: str = ""
    huge_pages_free: int = 0
    huge_page_bytes: int = 2 << 20
    memlock_bytes: int | None = None
    memlock_applies: bool = True
    open_files: int | None = None
    address_space_bytes: int | None = None
    memfd_error: str = ""
    shm_bytes: int | None = None
    num_gpus: int = 0
    cuda_driver_error: str = ""

    @property
    def gives_huge_pages(self) -> bool:
        """Whether memory of one process that asks for transparent huge pages gets them."""
        return self.private_huge_pages in ("always", "madvise")

    @property
    def shares_huge_pages(self) -> bool:
        """Whether shared memory that asks for them does."""
        return self.shared_huge_pages in ("always", "within_size", "advise", "force")


class DirectoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A cache directory and the filesystem below it.

    Attributes:
        path: as it was named, absolute.
        problem: why nothing could be seen, "" if something was: it hangs, is no directory, may not be entered.
        exists: whether it is there; if not, `device` and everything about space are of the nearest parent.
        write_error: why no file can be made there, "" if one can.
        direct_io_error: why O_DIRECT is refused, "" if it is not, None if that could not be tried.
        filesystem, options, source: of the mount, as /proc names them.
        device: number of the filesystem. Directories with the same one share everything.
        rotational, scheduler, read_ahead_kib: of the disk below, None or "" where that cannot be told.
        is_complete: whether there was time to look at what lies in it.
        folders: what lies in it.
    """

    path: str
    problem: str = ""
    exists: bool = True
    is_complete: bool = True
    write_error: str = ""
    direct_io_error: str | None = None
    filesystem: str = ""
    mount_point: str = ""
    options: tuple[str, ...] = ()
    source: str = ""
    device: int = 0
    free_bytes: int = 0
    total_bytes: int = 0
    free_inodes: int = 0
    total_inodes: int = 0
    rotational: bool | None = None
    scheduler: str = ""
    read_ahead_kib: int | None = None
    folders: tuple["FolderFacts", ...] = ()


class FolderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One folder of a cache directory.

    Attributes:
        report: what `tiercel ls` says of it.
        journal_bytes: size of the journal's segments, checkpoints not counted.
        was_killed: whether a status socket lies there though nobody holds the folder.
    """

    report: FolderReport
    journal_bytes: int = 0
    was_killed: bool = False


class SettingNote(msgspec.Struct, frozen=True, kw_only=True):
    """What `tiercel config explain` notes of a setting."""

    kind: str
    key: str
    text: str
    loud: bool = False


class SizeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Settings in bytes, for one model. piece_bytes: keys or values of one block in one layer."""

    host_bytes: int
    disk_bytes: int
    directory_bytes: int
    block_bytes: int
    piece_bytes: int
    fit_problem: str = ""


class SettingsFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Settings, as a cache would load them.

    Attributes:
        source: the file, or "environment".
        problem: why no cache can be opened with them, or "".
        values: settings by key, sizes as they were written.
        notes: of `config explain`.
        directories: of the disk tier, none when it is off.
        sizes: None without a model.
        mode: permission bits of the file, None without one.
        secret_keys: keys in the file whose names say that their values are secret.
    """

    source: str
    problem: str = ""
    values: dict[str, bool | int | float | str | None] = {}
    notes: tuple[SettingNote, ...] = ()
    directories: tuple[str, ...] = ()
    sizes: SizeFacts | None = None
    mode: int | None = None
    secret_keys: tuple[str, ...] = ()


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A running cache, looked at twice.

    Attributes:
        pid: 0 if the socket was named and did not tell.
        problem: why it could not be asked, or "".
        state: the process's state as /proc has it ("S", "T" for stopped), "" if there is no such process, "?" if that
            could not be asked.
        first, second: what it said, `interval_s` apart.
        directories: of its disk tier, as its open files tell, or its status socket.
        open_files, open_files_max: file descriptors that it has and may have, None if that cannot be read.
    """

    pid: int
    problem: str = ""
    state: str = ""
    first: StatusSnapshot | None = None
    second: StatusSnapshot | None = None
    interval_s: float = 0.0
    directories: tuple[str, ...] = ()
    open_files: int | None = None
    open_files_max: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether there was no such process any more when it was asked."""
        return bool(self.problem) and not self.state

    @property
    def subject(self) -> str:
        """Its name in findings."""
        return f"pid {self.pid}"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for and what was found.

    Attributes:
        tiercel: version of this installation.
        system: None if it could not be looked at; `problems` say why.
        problems: what could not be looked at, a sentence each.
        gpu_cache_bytes: KV memory of the engine's GPUs, None if nobody said.
        drive_writes_per_day: endurance of the disks, in their capacity a day.
        machine: figures of `tiercel probe`.
        measured_age_s: age of those figures.
    """

    tiercel: str
    system: SystemFacts | None = None
    settings: SettingsFacts | None = None
    directories: tuple[DirectoryFacts, ...] = ()
    processes: tuple[ProcessFacts, ...] = ()
    problems: tuple[str, ...] = ()
    gpu_cache_bytes: int | None = None
    drive_writes_per_day: float = 1.0
    machine: Machine | None = None
    measured_age_s: float = 0.0

    @property
    def readable_directories(self) -> tuple[DirectoryFacts, ...]:
        """Directories of which something could be seen."""
        return tuple(directory for directory in self.directories if not directory.problem)

    @property
    def answering(self) -> tuple[tuple[ProcessFacts, StatusSnapshot], ...]:
        """Processes that answered, with their latest snapshot."""
        found = ((process, process.second or process.first) for process in self.processes)
        return tuple((process, snapshot) for process, snapshot in found if snapshot is not None)

    def setting(self, key: str) -> bool | int | float | str | None:
        """A setting's value; None if there are no settings to look at."""
        return None if self.settings is None else self.settings.values.get(key)
