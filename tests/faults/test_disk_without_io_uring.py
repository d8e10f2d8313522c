"""A kernel that refuses io_uring, as a container's seccomp profile does: threads take over, and it is said."""

import ctypes
import logging
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.tier_samples import FINGERPRINT, why_no_io_uring

IO_URING_SETUP = 425
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2


def forbid_io_uring() -> None:
    """Make io_uring_setup fail with EPERM in this process from now on."""
    load_number, jump_if_equal, finish = 0x20, 0x15, 0x06
    fail_with_eperm, allow = 0x00050001, 0x7FFF0000
    steps = [(load_number, 0, 0, 0), (jump_if_equal, 0, 1, IO_URING_SETUP), (finish, 0, 0, fail_with_eperm)]
    program = b"".join(struct.pack("HBBI", *step) for step in [*steps, (finish, 0, 0, allow)])
    buffer = ctypes.create_string_buffer(program)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    described = struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0) != 0:
        sys.stdout.write("no seccomp\n")
        sys.exit()


def open_tiers(directory: Path) -> None:
    from tiercel.tiers.disk import DiskTier
    from tiercel.tiers.disk_options import DiskOptions

    logging.basicConfig(stream=sys.stdout)
    options = DiskOptions(directories=[directory], fingerprint=FINGERPRINT, num_slots=2, block_bytes=100)
    tier = DiskTier.open(options)
    sys.stdout.write(f"engine {tier.engine}\n")
    sys.stdout.writelines(f"fallback: {reason}\n" for reason in tier.fallbacks.values())
    tier.close()
    try:
        DiskTier.open(replace(options, engine="io_uring"))
    except OSError as error:
        sys.stdout.write(f"refused {error}\n")


@pytest.mark.skipif(bool(why_no_io_uring()), reason=why_no_io_uring())
def test_threads_take_over_aloud_and_an_explicit_wish_is_an_error(tmp_path: Path) -> None:
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})"
    script = (
        f"{path}\nimport tests.faults.test_disk_without_io_uring as t; from pathlib import Path\nt.forbid_io_uring()\n"
    )
    script += f"t.open_tiers(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    if "no seccomp" in done.stdout:
        pytest.skip("this kernel has no seccomp filters")
    assert done.returncode == 0, done.stderr
    assert "fallback: the kernel refused io_uring (Operation not permitted)" in done.stdout
    assert "engine threads" in done.stdout
    assert "refused [Errno 38]" in done.stdout
