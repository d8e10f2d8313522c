"""Compiles the copy kernels for the GPU at hand with NVRTC, NVIDIA's run-time compiler, and keeps the result on disk.

No CUDA toolkit is needed: libnvrtc comes with the wheel `nvidia-cuda-nvrtc` (extra `cuda`), with PyTorch, or with the
system. A cubin is kept under a name that holds the source, the architecture and the compiler's version, so that a change
of any of them compiles anew. Used by `copier` only.
"""

import ctypes
import hashlib
import importlib.util
import logging
import os
import tempfile
from importlib.resources import files
from pathlib import Path

from tiercel.config.folders import kernel_folder
from tiercel.errors import DeviceError

_logger = logging.getLogger(__name__)

_SOURCE = "copy_blocks.cu"
_SYSTEM_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
_WHEEL_PATTERNS = ("*/lib/libnvrtc.so.1[23]",)
_OPTIONS = ("--std=c++17", "--fmad=false")


def copy_kernels(capability: int) -> bytes:
    """Return the cubin of the copy kernels.

    Args:
        capability: compute capability times ten, 90 for 9.0.

    Raises:
        DeviceError: there is no compiler, or it knows no such GPU.
    """
    compiler = _Compiler(_open_library())
    source = files("tiercel.transfer.cuda").joinpath(_SOURCE).read_bytes()
    options = (*_OPTIONS, f"--gpu-architecture=sm_{capability}")
    identity = hashlib.sha256(b"\0".join([source, compiler.version.encode(), *(o.encode() for o in options)]))
    path = kernel_folder() / f"copy_blocks-sm_{capability}-{identity.hexdigest()[:32]}.cubin"
    kept = _read_kept(path)
    if kept is not None:
        return kept
    cubin = compiler.compile(source, options)
    _keep(path, cubin)
    return cubin


def _read_kept(path: Path) -> bytes | None:
    """A kept cubin, if it is there and whole: its last 32 bytes are the digest of what comes before."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    cubin, digest = content[:-32], content[-32:]
    if hashlib.sha256(cubin).digest() == digest:
        return cubin
    _logger.warning("%s is damaged; compiling it again", path)
    return None


def _keep(path: Path, cubin: bytes) -> None:
    """Write a cubin so that a reader sees it whole or not at all. Not being able to costs the next start a compilation."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(cubin + hashlib.sha256(cubin).digest())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        _logger.warning("compiled kernels cannot be kept in %s (%s); every start compiles them", path.parent, error)


def _open_library() -> ctypes.CDLL:
    tried: list[str] = []
    for name in [*_wheel_libraries(), *_SYSTEM_NAMES]:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            tried.append(str(error))
    raise DeviceError(
        "no libnvrtc, which compiles the copy kernels: install tiercel[cuda], or PyTorch with CUDA, or use the copy "
        f"engine in both directions ({'; '.join(tried)})"
    )


def _wheel_libraries() -> list[str]:
    """Paths of libnvrtc in NVIDIA's wheels, newest first. Looks into the namespace package without importing anything."""
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None or spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    found = [path for root in roots for pattern in _WHEEL_PATTERNS for path in Path(root).glob(pattern)]
    return [str(path) for path in sorted(found, key=lambda path: path.name, reverse=True)]


class _Compiler:
    """What we call of libnvrtc."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
        self.version = f"{major.value}.{minor.value}"

    def compile(self, source: bytes, options: tuple[str, ...]) -> bytes:
        """Return the cubin. Raises DeviceError with the compiler's log."""
        program = ctypes.c_void_p()
        create = self._library.nvrtcCreateProgram
        self._check(
            create(ctypes.byref(program), ctypes.c_char_p(source), _SOURCE.encode(), 0, None, None),
            "nvrtcCreateProgram",
        )
        try:
            arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            result = self._library.nvrtcCompileProgram(program, len(options), arguments)
            if result != 0:
                log = self._take(program, "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
                raise DeviceError(f"NVRTC {self.version} cannot compile {_SOURCE} with {' '.join(options)}: {log}")
            return self._take(program, "nvrtcGetCUBIN")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _take(self, program: ctypes.c_void_p, name: str) -> bytes:
        """Call nvrtcGet<X>Size and nvrtcGet<X>."""
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"{name}Size")(program, ctypes.byref(size)), f"{name}Size")
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, name)(program, buffer), name)
        return buffer.raw

    def _check(self, result: int, call: str) -> None:
        if result != 0:
            self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
            text = self._library.nvrtcGetErrorString(result) or b""
            raise DeviceError(f"{call}: error {result} ({text.decode()})")
