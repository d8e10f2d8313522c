"""Checks: what the system lets a process have."""

from collections.abc import Iterator

from tiercel.config import format_bytes
from tiercel.tune.doctor.check import MACHINE, Seen, advice, check, error, fine, warning
from tiercel.tune.doctor.facts import Facts
from tiercel.tune.doctor.findings import Group

_OPEN_FILES_MIN = 4096
_SHM_MIN_BYTES = 1 << 30
_MEMLOCK_MIN_BYTES = 8 << 20
_TIGHT_SHARE = 0.8
_URING_WITHOUT_MEMLOCK = (5, 12)


@check(
    Group.LIMITS,
    why="The kernel kills what outgrows its memory, and the whole engine with it.",
    remedy='num_cpu_blocks: "50%", or a smaller size; or raise the container\'s memory limit',
)
def memory(facts: Facts) -> Iterator[Seen]:
    """How much memory can still be taken and what limits it, control groups included. A warning if the settings' host tier takes
    more than 80 % of that and no cache runs that may hold it already; `fits` says if it is too large."""
    system = facts.system
    if system is None:
        return
    room = f"{format_bytes(system.memory_bytes)} can be taken ({system.memory_limited_by})"
    sizes = None if facts.settings is None else facts.settings.sizes
    if sizes is not None and not facts.answering and sizes.host_bytes > _TIGHT_SHARE * system.memory_bytes:
        yield warning(MACHINE, f"the host tier takes {format_bytes(sizes.host_bytes)}; {room}")
    else:
        yield fine(MACHINE, room)


@check(
    Group.LIMITS,
    why="At the end of its quota every thread of the process stands still, in the middle of a copy and of a decode step too.",
    remedy="raise the container's cpu limit, or lower cpu_copy_threads to it",
)
def cpu_quota(facts: Facts) -> Iterator[Seen]:
    """Whether a control group gives the process less time than the cores that it sees. A warning if that is less than
    `cpu_copy_threads`."""
    system = facts.system
    if system is None:
        return
    quota = system.cpu_quota_cores
    if quota is None or quota >= system.num_cores:
        yield fine(MACHINE, f"{system.num_cores} cores, no quota below that")
        return
    threads = facts.setting("cpu_copy_threads")
    seen = f"a quota of {quota:g} cores on {system.num_cores} that are shown"
    if isinstance(threads, int) and threads > quota:
        yield warning(MACHINE, f"{seen}, and cpu_copy_threads = {threads}")
    else:
        yield advice(MACHINE, seen)


@check(
    Group.LIMITS,
    why="Memory that is registered with io_uring counts as locked: beyond the limit, disk I/O takes half as much CPU again. "
    "Before Linux 5.12 rings count as well, and one that does not fit is refused.",
    remedy="ulimit -l unlimited, LimitMEMLOCK=infinity in the unit, or docker run --ulimit memlock=-1",
)
def locked_memory(facts: Facts) -> Iterator[Seen]:
    """Whether RLIMIT_MEMLOCK is below 8 MiB on a kernel that counts io_uring's rings against it; advice if it is below the
    host tier of settings with a disk tier, and no CAP_IPC_LOCK lifts it."""
    system = facts.system
    if system is None:
        return
    limit = system.memlock_bytes
    shown = "unlimited" if limit is None else format_bytes(limit)
    if limit is not None and limit < _MEMLOCK_MIN_BYTES and _release(system.kernel) < _URING_WITHOUT_MEMLOCK:
        yield warning(MACHINE, f"RLIMIT_MEMLOCK = {shown} on kernel {system.kernel}")
    elif limit is not None and system.memlock_applies and limit < _registered_bytes(facts):
        yield advice(MACHINE, f"RLIMIT_MEMLOCK = {shown}, and a host tier of {format_bytes(_registered_bytes(facts))}")
    else:
        yield fine(MACHINE, f"RLIMIT_MEMLOCK = {shown}")


@check(
    Group.LIMITS,
    why="Files, rings, sockets and one connection for each rank come on top of the server's connections; at the limit "
    "requests are refused.",
    remedy="ulimit -n 65536, LimitNOFILE=65536 in the unit, or docker run --ulimit nofile=65536",
)
def open_files(facts: Facts) -> Iterator[Seen]:
    """Whether RLIMIT_NOFILE is below 4096, or a running process has more than 80 % of its own in use."""
    if facts.system is not None:
        limit = facts.system.open_files
        if limit is not None and limit < _OPEN_FILES_MIN:
            yield advice(MACHINE, f"RLIMIT_NOFILE = {limit}")
        else:
            yield fine(MACHINE, f"RLIMIT_NOFILE = {'unlimited' if limit is None else limit}")
    for process in facts.processes:
        used, most = process.open_files, process.open_files_max
        if used is not None and most is not None and used > _TIGHT_SHARE * most:
            yield warning(process.subject, f"{used} of {most} file descriptors are in use")


@check(
    Group.LIMITS,
    why="A host tier is one mapping of its whole size; where it does not fit the cache cannot be opened.",
    remedy="ulimit -v unlimited (LimitAS=infinity in the unit)",
)
def address_space(facts: Facts) -> Iterator[Seen]:
    """Whether RLIMIT_AS is set: an error if the settings' host tier is larger, else a warning."""
    if facts.system is None:
        return
    limit = facts.system.address_space_bytes
    sizes = None if facts.settings is None else facts.settings.sizes
    if limit is None:
        yield fine(MACHINE, "RLIMIT_AS = unlimited")
    elif sizes is not None and sizes.host_bytes >= limit:
        yield error(MACHINE, f"RLIMIT_AS = {format_bytes(limit)}, the host tier takes {format_bytes(sizes.host_bytes)}")
    else:
        yield warning(MACHINE, f"RLIMIT_AS = {format_bytes(limit)}")


@check(
    Group.LIMITS,
    why="The host tier and the disk tier's buffers are shared memory; without it no cache can be opened.",
    remedy="allow memfd_create in the container's seccomp profile",
)
def shared_memory(facts: Facts) -> Iterator[Seen]:
    """Whether shared memory can be made (memfd) and mapped. The size of /dev/shm does not limit it."""
    if facts.system is None:
        return
    if facts.system.memfd_error:
        yield error(MACHINE, f"memfd_create fails: {facts.system.memfd_error}")
    else:
        yield fine(MACHINE, "memfd works")


@check(
    Group.LIMITS,
    why="Tiercel needs none of it, but engines with several processes do (NCCL, and vLLM's own offloading): a full /dev/shm "
    "ends in a bus error.",
    remedy="docker run --shm-size=16g (or --ipc=host); in Kubernetes an emptyDir with medium: Memory at /dev/shm",
)
def dev_shm(facts: Facts) -> Iterator[Seen]:
    """Whether /dev/shm is smaller than 1 GiB, as containers have it by default."""
    if facts.system is None or facts.system.shm_bytes is None:
        return
    shown = f"/dev/shm has {format_bytes(facts.system.shm_bytes)}"
    yield advice(MACHINE, shown) if facts.system.shm_bytes < _SHM_MIN_BYTES else fine(MACHINE, shown)


def _release(kernel: str) -> tuple[int, ...]:
    major, _, rest = kernel.partition(".")
    minor = "".join(digit for digit in rest.partition(".")[0] if digit.isdigit())
    return (int(major) if major.isdigit() else 0, int(minor or 0))


def _registered_bytes(facts: Facts) -> int:
    """What the disk tier would register with io_uring of the settings' host tier."""
    sizes = None if facts.settings is None else facts.settings.sizes
    if sizes is None or not facts.setting("enable_ssd") or facts.setting("ssd_io_engine") == "threads":
        return 0
    return sizes.host_bytes
