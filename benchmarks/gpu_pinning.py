"""What does it cost to pin a host tier for a GPU, and to give it back?

An arena is made resident with as many threads as the host tier takes, pinned chunk by chunk, and unpinned. Resident memory is
that of the process before and after, beyond the arena itself.

Run: python benchmarks/gpu_pinning.py [--gib N] [--json FILE]        (an NVIDIA GPU)
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from _harness import Row, make_parser, report

from tiercel import _native
from tiercel.tiers.host import HostTier
from tiercel.transfer.cuda import PinnedHost

_BLOCK_BYTES = 2 << 20
_GIB = 1 << 30


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rows_of(gib: int) -> Iterator[Row]:
    device = _native.CudaDevice(0)
    before = resident_bytes()
    started = time.perf_counter()
    host = HostTier(num_slots=gib * _GIB // _BLOCK_BYTES, block_bytes=_BLOCK_BYTES)
    host.prefault(os.cpu_count() or 1)
    yield Row(name=f"prefault {gib} GiB, huge pages {host.arena.huge}", value=time.perf_counter() - started, unit="s")
    pinned = PinnedHost(_GIB)
    region = host.shared_memory
    started = time.perf_counter()
    pinned.pin(device, region.address, region.num_bytes, unit_bytes=region.unit_bytes)
    pin_s = time.perf_counter() - started
    yield Row(name=f"pin {gib} GiB", value=pin_s, unit="s")
    yield Row(name="  a GiB", value=1e3 * pin_s / gib, unit="ms")
    beyond = resident_bytes() - before - region.num_bytes
    yield Row(name="resident beyond the arena, the CUDA context included", value=beyond / (1 << 20), unit="MiB")
    started = time.perf_counter()
    pinned.close()
    yield Row(name=f"unpin {gib} GiB", value=time.perf_counter() - started, unit="s")
    host.close()


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--gib", type=int, default=16, metavar="N", help="GiB of the arena")
    arguments = parser.parse_args()
    return report(list(rows_of(arguments.gib)), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
