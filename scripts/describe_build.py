"""Say what the native core that was just built can do. Called by `make setup`."""

from tiercel import _native

uring = getattr(_native, "built_with_io_uring", None)
if uring is None:
    raise SystemExit("setup: the native core was built, but it is not complete")
how = "io_uring" if uring() else "threads with preadv and pwritev (liburing was not found at build time)"
print(f"setup: disk I/O through {how}")
