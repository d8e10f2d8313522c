"""The disk tier's engine by itself: fixed-size slots in preallocated files, without names, journal or locks.

`DiskTier` keeps a cache with it; `tune.probe` and the benchmarks measure a directory with the very same reads and writes.
What is native here lies in native/core/disk.
"""

from tiercel._native import BlockFiles, checksum

__all__ = ["BlockFiles", "checksum"]
