"""How a rank joins a cache, and what it holds then: the connection and the cache's memory, mapped. Used by `agent` only."""

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tiercel.errors import ConfigError, DeadlineError, DeviceError
from tiercel.layout import EngineMemory
from tiercel.ranks import sockets
from tiercel.ranks.messages import (
    MESSAGE_BYTES_MAX,
    REGIONS_MAX,
    Copy,
    Hello,
    Message,
    MessageError,
    Refused,
    Welcome,
    decode_for_rank,
    encode,
)
from tiercel.ranks.regions import MappedRegion
from tiercel.tiers.base import Addresses
from tiercel.tiers.memory import page_aligned_bytes, region_of
from tiercel.transfer import Devices, GpuCopySettings

_SEND_S = 1.0


class RankLink:
    """A rank's connection to its cache, and the cache's memory."""

    def __init__(self, connection: socket.socket, regions: Sequence[MappedRegion], block_bytes: int) -> None:
        self.socket = connection
        self._regions = tuple(regions)
        self._block_bytes = block_bytes

    def devices(self, settings: GpuCopySettings, note: Callable[[str], None]) -> Devices:
        """Return what reaches this process's blocks; its GPUs pin the cache's memory."""
        return Devices([region_of(region) for region in self._regions], settings, note=note)

    def addresses(self, copy: Copy) -> Addresses:
        """Return where a copy's blocks lie here. Raises ValueError if they lie nowhere."""
        if copy.region >= len(self._regions) or len(copy.pages) != len(copy.ids) or len(copy.ids) % 4:
            raise ValueError(f"copy {copy.number} names no blocks of this cache's")
        return self._regions[copy.region].addresses(copy.pages, self._block_bytes)

    def send(self, message: Message) -> None:
        """Send a message, in a bounded time. Raises OSError."""
        sockets.send(self.socket, encode(message), _SEND_S)

    def close(self) -> None:
        """Unmap and disconnect. Idempotent. No copy may be under way."""
        for region in self._regions:
            region.close()
        self.socket.close()


def join(
    directory: Path, rank: int, memory: EngineMemory, timeout_s: float, is_ending: Callable[[], bool]
) -> RankLink | None:
    """Find the cache, say what this rank holds and map what the cache shares. Returns None if the rank ends first.

    Raises:
        DeadlineError: nobody listened, or answered, in time.
        ConfigError: the cache refused this rank, or the directory is not safe.
        DeviceError: the cache does not speak this protocol, or ended.
        OSError: the memory cannot be mapped.
    """
    stop_at = time.monotonic() + timeout_s
    connection = sockets.connect(directory, timeout_s, is_ending)
    if connection is None:
        if is_ending():
            return None
        raise DeadlineError(f"rank {rank}: no cache listened at {directory} in {timeout_s:g} s")
    with ExitStack() as undo:
        undo.callback(connection.close)
        start, stop = memory.head_range
        hello = Hello(
            rank=rank,
            geometry=dict(memory.geometry.fingerprint_parts()),
            head_start=start,
            head_stop=stop,
            num_blocks=memory.num_blocks,
            device=memory.device,
            writable=memory.writable,
        )
        sockets.send(connection, encode(hello), _SEND_S)
        welcome, fds = _receive_welcome(connection, rank, stop_at)
        regions: list[MappedRegion] = []
        try:
            if len(fds) != len(welcome.regions):
                raise DeviceError(f"the cache shares {len(welcome.regions)} memories and sent {len(fds)} files")
            for fd, region in zip(fds, welcome.regions, strict=True):
                unit_bytes = page_aligned_bytes(memory.geometry.block_bytes)
                regions.append(MappedRegion(fd, region.num_bytes, resident=region.resident, unit_bytes=unit_bytes))
                undo.callback(regions[-1].close)
        finally:
            for fd in fds:
                os.close(fd)
        undo.pop_all()
    return RankLink(connection, regions, memory.geometry.block_bytes)


def _receive_welcome(connection: socket.socket, rank: int, stop_at: float) -> tuple[Welcome, list[int]]:
    """Return the cache's answer to a `Hello`, and its files, which the caller closes. Raises as `join`."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(max(1.0, (stop_at - time.monotonic()) * 1000)):
        raise DeadlineError(f"rank {rank}: the cache was found, but did not answer in time")
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX + 1, REGIONS_MAX, flags)
    try:
        message = decode_for_rank(data) if data else None
        if isinstance(message, Welcome):
            return message, fds
        if isinstance(message, Refused):
            raise ConfigError(f"the cache refused rank {rank}: {message.reason}")
        raise DeviceError(f"rank {rank}: the cache ended, or answered something else than it was asked")
    except BaseException as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, MessageError):
            raise DeviceError(f"rank {rank}: the cache sent {error}") from error
        raise
