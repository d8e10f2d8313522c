"""What the user of a probe chooses, and how much is measured for it."""

from dataclasses import dataclass
from pathlib import Path

SECONDS_MIN = 1.0
SECONDS_MAX = 3600.0


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured of a directory.

    Attributes:
        block_bytes: sizes of blocks.
        depths: blocks in progress at once; of each size those that keep no more than `in_flight_bytes` in progress.
        file_bytes: size of the file, if there is room.
        with_fio: whether fio runs beside the largest depths, if it is installed.
    """

    block_bytes: tuple[int, ...]
    depths: tuple[int, ...]
    in_flight_bytes: int
    file_bytes: int
    with_fio: bool


FULL = Effort(
    block_bytes=(64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20),
    depths=(1, 8, 64),
    in_flight_bytes=64 << 20,
    file_bytes=1 << 30,
    with_fio=True,
)

QUICK = Effort(
    block_bytes=(64 << 10, 1 << 20, 8 << 20),
    depths=(1, 8),
    in_flight_bytes=64 << 20,
    file_bytes=256 << 20,
    with_fio=False,
)
"""Without fio, whose start alone takes a good part of a second."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Choices of one probe.

    Attributes:
        directories: cache directories to measure.
        engine: how they are read and written: "auto", "io_uring" or "threads".
        direct: ask for O_DIRECT.
        copy_threads: threads of the copy between host memory and host memory.
        quick: fewer figures, a smaller file, no fio.
        seconds: time of the whole probe.

    Raises:
        ValueError: `seconds` is out of range.
    """

    directories: tuple[Path, ...] = ()
    engine: str = "auto"
    direct: bool = True
    copy_threads: int = 1
    quick: bool = False
    seconds: float = 120.0

    def __post_init__(self) -> None:
        if not SECONDS_MIN <= self.seconds <= SECONDS_MAX:
            raise ValueError(f"--seconds {self.seconds:g}: must be from {SECONDS_MIN:g} to {SECONDS_MAX:g}")

    @property
    def effort(self) -> Effort:
        """How much is measured of each directory."""
        return QUICK if self.quick else FULL
