"""What the native core of this installation was built with and what it uses of this processor."""

from tiercel import _native


def has_io_uring() -> bool:
    """Whether the native core was built with io_uring; whether the kernel allows it is another question."""
    return _native.built_with_io_uring()


def processor_features() -> dict[str, bool]:
    """The processor's features that have a fast path of their own here, and whether it is in use."""
    return _native.cpu_features()
