"""Where files of ours lie that belong to the user rather than to a cache."""

import os
from pathlib import Path


def kernel_folder() -> Path:
    """Where compiled GPU kernels are kept: `$XDG_CACHE_HOME/tiercel/kernels`, by default below ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tiercel" / "kernels"
