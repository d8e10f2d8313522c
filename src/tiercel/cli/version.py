"""`tiercel version`: what is installed and what this build can do on this machine."""

import platform
from importlib import metadata

from tiercel import _native


def describe() -> str:
    """Return the version and the facts of the build, one a line."""
    uring = "yes" if _native.built_with_io_uring() else "no (built without liburing; disk I/O uses threads)"
    used = [name for name, present in _native.cpu_features().items() if present]
    lines = (
        f"tiercel {metadata.version('tiercel')}",
        f"python {platform.python_version()} on {platform.system().lower()} {platform.machine()}",
        f"io_uring: {uring}",
        f"cpu features in use: {', '.join(used) or 'none'}",
    )
    return "\n".join(lines)


def print_version() -> None:
    """Show the version, and whether this build uses io_uring and which CPU features."""
    print(describe())
