"""The simulated disk: built from `native/tests/simulated_disk`, loaded before the C library, told what to do from here.

A process runs on it if it was started with `environment(library)`; `SimulatedDisk` then speaks to the library inside it.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "native" / "tests" / "simulated_disk"


@dataclass(frozen=True, kw_only=True)
class DiskFaults:
    """How often each fault happens, per million calls, in the order in which the library counts them."""

    read_error: int = 0
    write_error: int = 0
    no_space: int = 0
    interrupted: int = 0
    short_read: int = 0
    short_write: int = 0
    flip_on_read: int = 0
    flip_on_write: int = 0
    sync_error: int = 0
    stall: int = 0

    @property
    def flips(self) -> bool:
        return bool(self.flip_on_read or self.flip_on_write)


NO_FAULTS = DiskFaults()
FAULT_NAMES = tuple(field.name for field in fields(DiskFaults))


def build(folder: Path) -> Path:
    """Compile the library into a folder, and return it."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler is not None, "the simulated disk is C++: install a compiler, the one that built the native core"
    library = folder / "libsimulated_disk.so"
    sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
    command = [compiler, "-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-o", str(library), *sources, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


def environment(library: Path) -> dict[str, str]:
    """The environment of a process that runs on the simulated disk."""
    return {**os.environ, "LD_PRELOAD": str(library), "SIMULATED_DISK_LIBRARY": str(library)}


class SimulatedDisk:
    """The simulated disk of this process. One a process."""

    def __init__(self, directory: Path, stash: Path, seed: int) -> None:
        """Take over the files under `directory`; `stash` keeps, on the same filesystem, what a power cut may bring back."""
        self._library = ctypes.CDLL(os.environ["SIMULATED_DISK_LIBRARY"])
        self._library.sim_is_dead.restype = ctypes.c_bool
        self._library.sim_start(str(directory).encode(), str(stash).encode(), ctypes.c_uint64(seed))

    def set_faults(self, faults: DiskFaults, *, stall_us: int = 0) -> None:
        rates = [getattr(faults, name) for name in FAULT_NAMES]
        self._library.sim_set_rates((ctypes.c_uint32 * len(rates))(*rates), ctypes.c_uint32(stall_us))

    def crash_in(self, num_calls: int) -> None:
        """Fail every call from the so many-th on that changes a file; 0: never mind."""
        self._library.sim_crash_in(ctypes.c_uint64(num_calls))

    @property
    def is_dead(self) -> bool:
        return bool(self._library.sim_is_dead())

    def revive(self, *, cut_power: bool) -> None:
        """Let calls work again on what a kill left, or a power cut. Every file must be closed."""
        self._library.sim_revive(ctypes.c_bool(cut_power))

    def counts(self) -> Mapping[str, int]:
        """Faults so far, by name."""
        values = (ctypes.c_uint64 * len(FAULT_NAMES))()
        self._library.sim_counts(values)
        return dict(zip(FAULT_NAMES, values, strict=True))
