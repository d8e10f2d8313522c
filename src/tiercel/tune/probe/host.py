"""What memory and processor do: copies of blocks by the cache's own routine, checksums, and keys. Used by `run`.

Each repeat moves enough bytes to leave the processor's caches: what is measured is memory, as a cache of many GiB meets it.
"""

import time
from collections.abc import Callable

import numpy as np

from tiercel.hashing import Sequence
from tiercel.tiers.block_files import checksum
from tiercel.tiers.memory import ContiguousMemory, allocate_memory, bytes_view
from tiercel.tune.machine import Figure
from tiercel.tune.probe.trust import Clock, repeat_until_trusted

COPY_BYTES = 256 << 20
COPY_BYTES_MIN = 16 << 20
_COPY_BLOCK_BYTES = 1 << 20
_CHECKSUM_BLOCK_BYTES = 1 << 20
_CHECKSUM_BYTES = 64 << 20
_HASH_TOKENS = 128 << 10
_TOKENS_PER_BLOCK = 16


def copy_rate(num_threads: int, num_bytes: int, *, seconds: float, clock: Clock) -> Figure:
    """Bytes a second from host memory to host memory, in blocks of 1 MiB.

    Args:
        num_threads: that share each copy.
        num_bytes: of each repeat, at least a block.
        seconds: as `repeat_until_trusted` has it.
        clock: for the time budget; what is measured is measured with the real one.
    """
    num_blocks = num_bytes // _COPY_BLOCK_BYTES
    source, target = (allocate_memory(num_blocks, _COPY_BLOCK_BYTES) for _ in range(2))
    for block in range(num_blocks):  # pages that were never written would all be read from the one page of zeros
        bytes_view(source, block, _COPY_BLOCK_BYTES)[:] = bytes([block % 251 + 1]) * _COPY_BLOCK_BYTES
    target_addresses = target.addresses
    copier = ContiguousMemory(source.addresses, _COPY_BLOCK_BYTES, num_threads=num_threads, owner=source)
    copier.gather(target_addresses)
    return _rate(lambda: copier.gather(target_addresses), num_blocks * _COPY_BLOCK_BYTES, seconds, clock)


def checksum_rate(*, seconds: float, clock: Clock) -> Figure:
    """Bytes a second of the blocks' checksum on one core, from memory."""
    data = np.random.default_rng(0).integers(0, 1 << 63, _CHECKSUM_BYTES // 8, np.int64).view(np.uint8)
    blocks = list(data.reshape(-1, _CHECKSUM_BLOCK_BYTES))

    def all_blocks() -> None:
        for block in blocks:
            checksum(block)

    all_blocks()
    return _rate(all_blocks, _CHECKSUM_BYTES, seconds, clock)


def hash_rate(*, seconds: float, clock: Clock) -> Figure:
    """Tokens a second that become keys on one core, in blocks of 16."""
    tokens = np.random.default_rng(0).integers(0, 150_000, _HASH_TOKENS, np.int32)

    def keys() -> None:
        Sequence(bytes(16), _TOKENS_PER_BLOCK, tokens).keys()

    keys()
    return _rate(keys, _HASH_TOKENS, seconds, clock)


def _rate(work: Callable[[], None], amount: int, seconds: float, clock: Clock) -> Figure:
    def sample() -> tuple[float]:
        started = time.perf_counter()
        work()
        return (amount / (time.perf_counter() - started),)

    return repeat_until_trusted(sample, seconds=seconds, clock=clock)[0]
