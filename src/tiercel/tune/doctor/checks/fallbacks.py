"""Checks: everything that works another way than asked, and slower, without failing."""

from collections.abc import Iterator

from tiercel.config import format_bytes
from tiercel.tune.doctor.check import MACHINE, SETTINGS, Seen, advice, check, error, fine, warning
from tiercel.tune.doctor.facts import Facts
from tiercel.tune.doctor.findings import Group

_HUGE_ARENA_MIN_BYTES = 1 << 30
"""Host tiers below this gain nothing that anybody would notice."""


@check(
    Group.FALLBACKS,
    why="Without io_uring a thread waits for every disk request: more CPU and less bandwidth at the same depth.",
    remedy="sysctl kernel.io_uring_disabled=0, and allow io_uring_setup, io_uring_enter and io_uring_register in the "
    "container's seccomp profile; or settle it with ssd_io_engine: threads",
)
def io_uring(facts: Facts) -> Iterator[Seen]:
    """Whether this build has io_uring and the kernel gives a ring to this process. An error if `ssd_io_engine` insists on it."""
    system = facts.system
    if system is None or facts.setting("ssd_io_engine") == "threads":
        return
    tell = error if facts.setting("ssd_io_engine") == "io_uring" else warning
    if not system.io_uring_built:
        remedy = "install liburing's headers (liburing-dev) and build again, or install a wheel that has it"
        yield tell(MACHINE, "this build has no io_uring: liburing was not there when it was compiled", remedy)
    elif system.io_uring_error:
        switched_off = f"; kernel.io_uring_disabled = {system.io_uring_disabled}" if system.io_uring_disabled else ""
        yield tell(MACHINE, f"the kernel refuses io_uring ({system.io_uring_error}){switched_off}")
    else:
        yield fine(MACHINE, f"kernel {system.kernel} gives io_uring rings")


@check(
    Group.FALLBACKS,
    why="Through the page cache every block is copied once more and takes memory twice; bandwidth falls under pressure.",
    remedy="put ssd_cache_dir on ext4 or XFS on a local disk",
)
def direct_io(facts: Facts) -> Iterator[Seen]:
    """Whether files in each cache directory can be opened with O_DIRECT, tried with a file that never gets a name or with
    a block file that lies there; advice where `ssd_direct_io` is false."""
    if facts.setting("ssd_direct_io") is False:
        yield advice(SETTINGS, "ssd_direct_io is false: the page cache is used", "ssd_direct_io: true")
        return
    for directory in facts.readable_directories:
        if directory.direct_io_error:
            yield warning(directory.path, f"{directory.filesystem} refuses O_DIRECT ({directory.direct_io_error})")
        elif directory.direct_io_error == "":
            yield fine(directory.path, "O_DIRECT works")


@check(
    Group.FALLBACKS,
    why="With 4 KiB pages a host tier takes longer to start and to pin, and copies miss the TLB more often.",
    remedy="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; for a node, and ranks, echo advise > "
    "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
)
def huge_pages(facts: Facts) -> Iterator[Seen]:
    """Whether a host tier would get huge pages: enough reserved ones, or transparent ones for memory that asks. Advice if only
    memory that is not shared with other processes would, a warning if none would and the settings' host tier is 1 GiB or more."""
    system = facts.system
    if system is None or facts.setting("cpu_hugepages") is False or facts.setting("enable_cpu") is False:
        return
    sizes = None if facts.settings is None else facts.settings.sizes
    wanted = 0 if sizes is None else sizes.host_bytes
    reserved = system.huge_pages_free * system.huge_page_bytes
    choices = (
        f"enabled = {system.private_huge_pages or 'missing'}, shmem_enabled = {system.shared_huge_pages or 'missing'}"
    )
    if (system.gives_huge_pages and system.shares_huge_pages) or (reserved and reserved >= wanted):
        yield fine(MACHINE, f"{choices}, {format_bytes(reserved)} reserved")
        return
    if system.gives_huge_pages:
        remedy = "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
        yield advice(MACHINE, f"{choices}: a node, and an engine with ranks, would get small pages", remedy)
        return
    seen = f"{choices}, {system.huge_pages_free} reserved huge pages"
    if wanted < _HUGE_ARENA_MIN_BYTES:
        yield advice(MACHINE, seen)
        return
    pages = -(-wanted // system.huge_page_bytes)
    remedy = f"sysctl vm.nr_hugepages={pages}, or echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
    yield warning(MACHINE, f"{seen}, for a host tier of {format_bytes(wanted)}", remedy)


@check(
    Group.FALLBACKS,
    why="Without NVIDIA's driver library in the process nothing can be pinned: no block goes between GPU and host memory.",
    remedy="start the container with its driver libraries (docker run --gpus all, or the runtime class nvidia)",
)
def pinning(facts: Facts) -> Iterator[Seen]:
    """Whether, on a machine that shows NVIDIA GPUs, libcuda can be loaded, which pins memory."""
    system = facts.system
    if system is None or not system.num_gpus:
        return
    if system.cuda_driver_error:
        yield error(MACHINE, f"{system.num_gpus} GPUs, but libcuda does not load ({system.cuda_driver_error})")
    else:
        yield fine(MACHINE, f"{system.num_gpus} GPUs and their driver library")


@check(
    Group.FALLBACKS,
    why="GPUDirect Storage is not used by this version: disk blocks go through pinned buffers in host memory.",
    remedy="remove the key; expect the rate of the slower of disk and PCIe, not their sum",
)
def gpudirect_storage(facts: Facts) -> Iterator[Seen]:
    """Whether the settings, ours or another cache's, ask for GPUDirect Storage."""
    for note in () if facts.settings is None else facts.settings.notes:
        if "gds" in note.key.lower():
            yield advice(SETTINGS, f"{note.key}: {note.text}")


@check(
    Group.FALLBACKS,
    why="Memory on the other node costs bandwidth between sockets, for every copy, and for the GPU's as well.",
    remedy="numactl --cpunodebind=N --membind=N in front of the engine, N being the node of its GPU (nvidia-smi topo -m)",
)
def numa(facts: Facts) -> Iterator[Seen]:
    """Whether a process started as doctor was may allocate on several NUMA nodes of a machine that has several, neither
    its control group nor numactl --membind keeping it to one."""
    system = facts.system
    if system is None:
        return
    if system.numa_nodes_allowed > 1:
        yield advice(MACHINE, f"memory may come from {system.numa_nodes_allowed} of {system.numa_nodes} NUMA nodes")
    else:
        yield fine(MACHINE, f"memory comes from 1 of {system.numa_nodes} NUMA nodes")


@check(
    Group.FALLBACKS,
    why="Hashing without SHA extensions is several times slower, checksums without AVX2 too; lookups and disk reads pay it.",
    remedy="run on a processor that has them, or show them to the virtual machine (CPU model host-passthrough)",
)
def processor(facts: Facts) -> Iterator[Seen]:
    """Whether the processor has what the native core has fast paths for: SHA extensions and AVX2; AVX-512 is a bonus."""
    if facts.system is None or not facts.system.processor_features:
        return
    features = facts.system.processor_features
    missing = [name for name, used in features.items() if not used and not name.startswith("avx512")]
    used = ", ".join(name for name, is_used in features.items() if is_used) or "none"
    if missing:
        yield advice(MACHINE, f"no {', '.join(missing)}; fast paths in use: {used}")
    else:
        yield fine(MACHINE, f"fast paths in use: {used}")
