"""Tiercel's side of the disk benchmark: block files in calls as transfer lanes make them, and the transfer engine itself."""

import itertools
import queue
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.plan import Completion, Move, OperationKind, Plan, pack_keys, pack_slots
from tiercel.tiers.base import BlockStatus, Tier, TierName
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.host import HostTier
from tiercel.tiers.memory import ContiguousMemory, allocate_memory, bytes_view, region_of
from tiercel.transfer.engine import TransferEngine
from tiercel.transfer.lanes import TransferSettings

SETTINGS = TransferSettings()
Part = NDArray[np.uint32]


class Files:
    """One file of blocks, all written; calls of `chunk_bytes`, `lane_workers` of them at a time."""

    def __init__(
        self, path: Path, *, block_bytes: int, num_bytes: int, queue_depth: int, reads_first: bool = True
    ) -> None:
        self.path = path
        self.block_bytes = block_bytes
        self._slots = np.arange(num_bytes // block_bytes, dtype=np.uint32)
        self._files = _native.BlockFiles(
            [str(path)],
            num_slots=len(self._slots),
            slot_bytes=block_bytes,
            block_bytes=block_bytes,
            queue_depth=queue_depth,
            write_bytes_beside_reads=DiskOptions.write_bytes_beside_reads if reads_first else 1 << 62,
        )
        self._memory = _filled_memory(len(self._slots), block_bytes)
        self._files.use_memory(
            int(self._memory.addresses[0]), num_bytes, block_bytes
        )  # as a cache does with its tiers'
        self._checksums = np.zeros(len(self._slots), np.uint64)
        self._write(self._slots)

    def run(self, workload: str) -> float:
        """Go over the file once and return bytes a second. Mixed: chunks of reads and of writes side by side, 70 to 30."""
        chunk_blocks = max(1, SETTINGS.chunk_bytes // self.block_bytes)
        num_read = {"read": len(self._slots), "write": 0, "mixed": len(self._slots) * 7 // 10}[workload]
        lanes = [(self._read, self._slots[:num_read]), (self._write, self._slots[num_read:])]
        started = time.perf_counter()
        with ThreadPoolExecutor(len(lanes)) as pool:
            for done in [pool.submit(_drain, *lane, chunk_blocks) for lane in lanes]:
                done.result()
        return len(self._slots) * self.block_bytes / (time.perf_counter() - started)

    def read_latencies_beside_writes(self, *, seconds: float, pause_s: float) -> tuple[NDArray[np.float64], float]:
        """Read one block at a time, with pauses, while the lanes write. Returns seconds of reads, and bytes a second written."""
        half = len(self._slots) // 2
        chunk_blocks = max(1, SETTINGS.chunk_bytes // self.block_bytes)
        chunks = itertools.cycle([self._slots[at : at + chunk_blocks] for at in range(0, half, chunk_blocks)])
        stopped, latencies, written = threading.Event(), [], queue.SimpleQueue[int]()

        def keep_writing() -> None:
            while not stopped.is_set():
                chunk = next(chunks)
                self._write(chunk)
                written.put(len(chunk) * self.block_bytes)

        random = np.random.default_rng(7)
        with ThreadPoolExecutor(SETTINGS.lane_workers) as pool:
            writers = [pool.submit(keep_writing) for _ in range(SETTINGS.lane_workers)]
            started = time.perf_counter()
            while time.perf_counter() - started < seconds:
                slot = self._slots[random.integers(half, len(self._slots))][None]
                before = time.perf_counter()
                self._read(slot)
                latencies.append(time.perf_counter() - before)
                time.sleep(pause_s)
            elapsed = time.perf_counter() - started
            num_bytes = sum(written.get() for _ in range(written.qsize()))
            stopped.set()
            for writer in writers:
                writer.result()
        return np.array(latencies), num_bytes / elapsed

    def close(self) -> None:
        self._files.close()

    def _write(self, slots: Part) -> None:
        errors, checksums = self._files.write(slots, self._memory.addresses[slots], slots.astype(np.uint64))
        assert not errors.any()
        self._checksums[slots] = checksums

    def _read(self, slots: Part) -> None:
        addresses, seeds = self._memory.addresses[slots], slots.astype(np.uint64)
        assert not self._files.read(slots, addresses, seeds, self._checksums[slots]).any()


class EndToEnd:
    """Host tier to disk tier and back, as plans of one move through the transfer engine."""

    def __init__(self, directory: Path, *, block_bytes: int, num_bytes: int, queue_depth: int) -> None:
        self._num_blocks = num_bytes // block_bytes
        self._host = HostTier(num_slots=self._num_blocks, block_bytes=block_bytes)
        self._host.prefault(2)
        self._disk = DiskTier.open(
            DiskOptions(
                directories=[directory],
                fingerprint=b"benchmark".ljust(32, b"\0"),
                num_slots=self._num_blocks,
                block_bytes=block_bytes,
                queue_depth=queue_depth,
            )
        )
        self._disk.use_memory(region_of(self._host.shared_memory))
        self.path = self._disk.folder / "data-0.bin"
        self._slots = np.arange(self._num_blocks, dtype=np.uint32)
        _fill(self._host.memory(self._slots), block_bytes)
        self._keys = np.random.default_rng(1).integers(0, 256, (self._num_blocks, 16), dtype=np.uint8)
        self._completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        tiers: dict[TierName, Tier] = {TierName.HOST: self._host, TierName.DISK: self._disk}
        self._engine = TransferEngine(tiers, SETTINGS, on_completion=self._completions.put)
        self._tickets = itertools.count(1)
        self.run("write")

    def run(self, workload: str) -> float:
        """Move every block once: "write" to disk, "read" to the host tier. Returns bytes a second."""
        stores = workload == "write"
        source, target = (TierName.HOST, TierName.DISK) if stores else (TierName.DISK, TierName.HOST)
        move = Move(
            source=source,
            target=target,
            first_block=0,
            num_blocks=self._num_blocks,
            source_slots=pack_slots(self._slots),
            target_slots=pack_slots(self._slots),
            parent_key=bytes(16),
            keys=pack_keys(self._keys),
        )
        plan = Plan(
            ticket=next(self._tickets),
            kind=OperationKind.STORE if stores else OperationKind.PREFETCH,
            first_block=0,
            num_blocks=self._num_blocks,
            moves=(move,),
            frees=(),
            deadline_s=60.0,
        )
        started = time.perf_counter()
        self._engine.submit(plan, None)
        completion = self._completions.get(timeout=60)
        seconds = time.perf_counter() - started
        assert set(completion.statuses) == {BlockStatus.OK}
        return completion.num_bytes / seconds

    def close(self) -> None:
        self._engine.close()
        self._disk.close()
        self._host.close()


def cpu_s_of(act: Callable[[], float]) -> tuple[float, float]:
    """Run `act`; return what it returns and the CPU seconds that this process took meanwhile."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    before = used()
    result = act()
    return result, used() - before


def _drain(act: Callable[[Part], None], slots: Part, chunk_blocks: int) -> None:
    """Run `act` on every chunk, as many at a time as a lane has workers."""
    chunks = [slots[at : at + chunk_blocks] for at in range(0, len(slots), chunk_blocks)]
    with ThreadPoolExecutor(SETTINGS.lane_workers) as workers:
        for _ in workers.map(act, chunks):
            pass


def _filled_memory(num_blocks: int, block_bytes: int) -> ContiguousMemory:
    memory = allocate_memory(num_blocks, block_bytes)
    _fill(memory, block_bytes)
    return memory


def _fill(memory: ContiguousMemory, block_bytes: int) -> None:
    content = np.random.default_rng(3).bytes(block_bytes)
    for block in range(memory.num_blocks):
        view = bytes_view(memory, block, block_bytes)
        view[:] = content
        view[:8] = block.to_bytes(8, "little")
