"""What a machine was measured to be capable of: the file that `tiercel probe` writes and the simulator reads.

Rates are bytes a second, times seconds. Every figure says how far its repeats lay apart and whether that was small enough to
be trusted.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tiercel.errors import ConfigError, FormatError
from tiercel.tune.files import write_whole

VERSION = 1

TRUSTED_SPREAD = 0.1
"""Largest distance between the quartiles, as a share of the median, at which a figure is trusted."""


PART_BYTES = 2 << 20
"""The disk tier makes several requests of a block that is larger."""

_RATE_MAX = 1e18
_Measured = Annotated[float, msgspec.Meta(gt=1e-12, le=_RATE_MAX)]
_Quartile = Annotated[float, msgspec.Meta(ge=0, le=_RATE_MAX)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """The median of repeated measurements, and their quartiles."""

    value: _Measured
    low: _Quartile
    high: _Quartile
    repeats: int

    @property
    def is_trusted(self) -> bool:
        """Whether the repeats lie close together."""
        return self.high - self.low <= TRUSTED_SPREAD * self.value


class DiskFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One way of using a cache directory.

    Attributes:
        operation: what was done; of "mixed" half the blocks were read.
        block_bytes: bytes of one read or write.
        depth: how many were in progress at once.
        latency_p50_s, latency_p99_s: of one block, from being asked for to being there.
        fio_bytes_per_s: the same by fio in the same run; None where fio is not installed.
        fio_ratio: Tiercel's rate over fio's of the run next to it, which a drifting device disturbs less than the rates.
    """

    operation: Literal["read", "write", "mixed"]
    block_bytes: _AtLeastOne
    depth: _AtLeastOne
    bytes_per_s: Figure
    latency_p50_s: _Seconds
    latency_p99_s: _Seconds
    fio_bytes_per_s: Figure | None = None
    fio_ratio: Figure | None = None

    @property
    def num_requests(self) -> int:
        """How many requests were in progress at once: what `ssd_cache_iouring_entries` counts."""
        return self.depth * -(-self.block_bytes // PART_BYTES)


class StorageDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of the device under a directory.

    Attributes:
        model: "" where the kernel knows none.
        rotational: whether it says that the device has moving parts; virtual disks often say so wrongly.
        wear: what the kernel tells of its wear, in its own words; "" where it tells nothing, as of NVMe devices.
    """

    name: str
    model: str
    rotational: bool
    capacity_bytes: int
    wear: str = ""


class DirectoryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A cache directory. `engine` is how it was read and written: io_uring or threads; `direct` with O_DIRECT or not.
    `device` is None for a filesystem on none, or on several."""

    path: str
    filesystem: str
    capacity_bytes: int
    free_bytes: int
    engine: str
    direct: bool
    figures: tuple[DiskFigure, ...]
    device: StorageDevice | None = None


class GpuCopyFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Scattered copies of one piece size. ctas: 0 for the copy engine."""

    direction: Literal["h2d", "d2h"]
    piece_bytes: _AtLeastOne
    ctas: int
    bytes_per_s: Figure


class GpuFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. Contiguous pinned copies each way and both at once, and scattered ones."""

    name: str
    memory_bytes: int
    h2d_bytes_per_s: Figure
    d2h_bytes_per_s: Figure
    both_bytes_per_s: Figure
    copies: tuple[GpuCopyFigure, ...]


class NodeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A node and one client of it, in a process of its own.

    Attributes:
        num_tokens: of the prompt that is looked up, all of it stored.
        lookup_s: of one lookup in the client, the prompt's keys computed from scratch.
        exchange_s: of a lookup whose one key the node knows already, and which finds nothing.
    """

    num_tokens: _AtLeastOne
    lookup_s: Figure
    exchange_s: Figure


class HugePages(msgspec.Struct, frozen=True, kw_only=True):
    """Reserved huge pages of the default size, and whether shared memory gets transparent ones: the kernel's word for it."""

    page_bytes: int
    total: int
    free: int
    transparent_shared: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured.

    Attributes:
        measured_at: seconds since the epoch.
        tiercel: version that measured.
        num_cores: that this process may use.
        copy_bytes_per_s: host memory to host memory, all cores that the cache would use.
        copy_threads: how many those are; 0 in files of versions that did not say.
        copy_core_bytes_per_s: the same on one core.
        checksum_bytes_per_s, hash_tokens_per_s: on one core.
        node: None in a short probe, and in files of versions that did not measure it.
        notes: what was left out or is not to be trusted, and why, a sentence each.
    """

    version: int = VERSION
    measured_at: float
    tiercel: str
    cpu: str
    num_cores: _AtLeastOne
    memory_bytes: int
    kernel: str
    copy_bytes_per_s: Figure
    checksum_bytes_per_s: Figure
    hash_tokens_per_s: Figure
    copy_threads: _Count = 0
    copy_core_bytes_per_s: Figure | None = None
    numa_nodes: int = 1
    hugepages: HugePages | None = None
    directories: tuple[DirectoryFigures, ...] = ()
    gpus: tuple[GpuFigures, ...] = ()
    node: NodeFigures | None = None
    notes: tuple[str, ...] = ()


def read_machine(path: str | Path) -> Machine:
    """Read a machine's file.

    Raises:
        ConfigError: there is no file.
        FormatError: it is no such file, or one of another version.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"machine = {str(path)!r}: there is no such file; measure this machine with tiercel probe --output {path}, or name "
            f"the file of another one"
        ) from error
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != VERSION:
            raise FormatError(f"{path} has version {version}, this is {VERSION}; measure again with tiercel probe")
        return msgspec.json.decode(data, type=Machine)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path} is no file of `tiercel probe`: {error}; measure again with tiercel probe") from error


class _Versioned(msgspec.Struct):
    """What a file of any version holds: looked at first, since the rest of another version may not fit."""

    version: int


def write_machine(machine: Machine, path: str | Path) -> None:
    """Write a machine's file. Raises OSError, and leaves what was there."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(machine), indent=2).decode() + "\n")


def nearest_size(sizes: Iterable[int], num_bytes: int) -> int:
    """Return the measured size that another one is most like, by their ratio; of two the smaller one."""
    return min(sizes, key=lambda size: (abs(math.log(size / max(num_bytes, 1))), size))
