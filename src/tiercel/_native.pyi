"""Types of the native core. Arrays are C-contiguous numpy arrays in host memory; every call that may take longer than a
few microseconds releases the GIL. Caller's mistakes raise ValueError or TypeError."""

import collections.abc
import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

# ── build ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def built_with_io_uring() -> bool: ...
def cpu_features() -> dict[str, bool]: ...  # {"sha_ni": ..., "avx2": ..., "avx512f": ...}: which fast paths are in use

# ── hashing (native/core/hashing) ────────────────────────────────────────────────────────────────────────────────────
KEY_BYTES: Final[int]  # 16

@final
class Sequence:
    """The tokens of one growing sequence and the keys of its full blocks, hashed on demand and only once.

    key[i + 1] = SHA-256(tokens of block i || key[i] || extras of block i || uint32 len(extras) || uint32 tokens_per_block)[:16]
    with tokens as int32 and all integers little endian. tiercel.hashing says why.

    Thread-safe; `extend` never waits for hashing. Memory: 16 bytes a block, reserved in levels that double, and 4 bytes a
    token not yet hashed.
    """

    def __init__(
        self,
        root: bytes,
        tokens_per_block: int,
        tokens: NDArray[np.int32] | NDArray[np.int64] | list[int] | None = None,
        *,
        origin: int = 0,
    ) -> None:
        """root: key[0], 16 bytes. tokens_per_block: a power of two up to 65536. tokens: in [0, 2^31). Else ValueError.
        origin: 64 bits that its maker wants to know it by again."""
    @staticmethod
    def of_keys(root: bytes, tokens_per_block: int, *, origin: int = 0) -> Sequence:
        """A sequence of keys alone, for whoever never sees the tokens: all its blocks count as hashed, num_tokens is
        num_blocks * tokens_per_block, and `extend` raises ValueError."""
    def append_keys(self, keys: bytes) -> None:
        """Keys of the blocks that follow, 16 bytes each. ValueError for a part of a key, or a sequence of tokens."""
    def extend(
        self, tokens: NDArray[np.int32] | NDArray[np.int64] | list[int], extras: Mapping[int, bytes] | None = None
    ) -> None:
        """Append tokens; a list's are read as they are, without numpy. extras: block index -> bytes that enter that block's key (multimodal item hashes and the like);
        only blocks that had no token before this call, each once. b"" is the same as none. ValueError otherwise, and the
        sequence is unchanged."""
    @property
    def root(self) -> bytes: ...
    @property
    def tokens_per_block(self) -> int: ...
    @property
    def origin(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def num_blocks(self) -> int:
        """Full blocks; a partly filled last block is not counted and has no key."""
    @property
    def num_hashed_blocks(self) -> int: ...
    def keys(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Keys of the full blocks [start, stop): uint8[stop - start, 16], a copy. Hashes what is not hashed yet, up to
        stop. ValueError unless start <= stop <= num_blocks."""
    def parent_key(self, block: int) -> bytes:
        """Key of the block before `block`; the root for block 0. ValueError if block > num_blocks."""

# For benchmarks and tests: keys of the full blocks (tokens are not checked), and the hash itself, each by the processor's
# SHA extensions where it has them, or in portable code.
def sha256_chain(
    root: bytes, tokens: NDArray[np.int32], tokens_per_block: int, portable: bool = False
) -> NDArray[np.uint8]: ...
def sha256(data: bytes, portable: bool = False) -> bytes: ...

# ── memory (native/core/memory) ──────────────────────────────────────────────────────────────────────────────────────
def checksum(data: Any, seed: int = 0) -> int:
    """64-bit XXH3 of a C-contiguous buffer; the same on every machine. ValueError if it is not contiguous."""

def return_freed_memory() -> None:
    """Hand freed memory back to the kernel, where the C library would keep it. Milliseconds."""

@final
class Arena:
    """One memory mapping, zero-filled, its base address page-aligned. It lives until it is closed or destroyed. If it is
    shared (memfd), its memory lives until every process that maps it has let go; else no other process has it, forked
    children neither.

    After close, `address`, `fd` and `prefault` raise ValueError; `fd` always if it is not shared."""

    def __init__(self, num_bytes: int, *, hugepages: bool = True, shared: bool = True) -> None:
        """hugepages: use reserved huge pages if enough are free, else ask for transparent ones; `huge` says what was got.
        Most kernels give transparent ones to memory that is not shared, and to shared memory only if told to.
        OSError (ENOMEM), with nothing left behind, if num_bytes exceed what the machine and its memory limits leave.
        ValueError for 0 bytes. No page is resident yet, except that reserved huge pages are taken."""
    @property
    def address(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def fd(self) -> int: ...
    @property
    def huge(self) -> bool:
        """Whether reserved huge pages back it, or the kernel gives transparent ones to memory of its kind that asks."""
    def prefault(self, start: int, stop: int) -> None:
        """Make the pages of [start, stop) resident, keeping their bytes. Callers split the range over threads.
        OSError (ENOMEM) if there is no memory left; ValueError for a range outside the arena."""
    def close(self) -> None:
        """Unmap. Idempotent. Nothing may use the memory any more, `prefault` in another thread included."""

@final
class CopyProgram:
    """How one block in an engine's memory maps onto one contiguous block ("slot format").

    pieces: int64[num_pieces, 9]; a piece is a strided box of equal runs of bytes:
      0 engine address of block 0   1 engine stride of a block
      2 offset in the slot
      3 outer count   4 outer engine stride   5 outer slot stride
      6 inner count   7 inner stride in the engine (the inner slot stride is the run, so the slot side is dense)
      8 run bytes
    """

    def __init__(self, pieces: NDArray[np.int64], block_bytes: int) -> None:
        """ValueError if a count, a run or an address is not positive, or if pieces leave [0, block_bytes) or overlap in
        the slot. Gaps are allowed: a tensor-parallel shard writes only its part of a slot."""
    def gather(self, blocks: NDArray[np.int64], targets: NDArray[np.uint64], num_threads: int = 1) -> None:
        """Engine blocks -> slots at targets. ValueError, before a byte is copied, if the arrays differ in length, a block is
        negative or a target 0. That the addresses are mapped is the caller's to answer for. Starts up to num_threads - 1
        threads for the call, one per MiB at most."""
    def scatter(self, blocks: NDArray[np.int64], sources: NDArray[np.uint64], num_threads: int = 1) -> None:
        """Slots at sources -> engine blocks; as gather. The engine side of a program may not overlap itself."""

def copy_blocks(
    sources: NDArray[np.uint64], targets: NDArray[np.uint64], block_bytes: int, num_threads: int = 1
) -> None:
    """Plain copy of contiguous blocks; as CopyProgram.gather. No source may overlap a target."""

# ── GPU copies (native/core/cuda) ────────────────────────────────────────────────────────────────────────────────────
# Nothing here opens NVIDIA's driver before it is called. RuntimeError if there is none, or if it fails a call.
def cuda_driver_version() -> int:
    """12080 for a driver that speaks CUDA 12.8."""

def cuda_has_batched_copies() -> bool:
    """Whether the driver has cuMemcpyBatchAsync; otherwise the copy engine is called once for each run."""

@final
class CudaDevice:
    """A GPU's primary context, kept alive. Everything made of it keeps it."""

    def __init__(self, ordinal: int) -> None:
        """ValueError for a number that the process does not see."""
    @property
    def name(self) -> str: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def capability(self) -> int:
        """Compute capability times ten: 90 for 9.0."""
    @property
    def num_processors(self) -> int: ...
    @property
    def shares_host_addresses(self) -> bool:
        """Whether kernels reach pinned host memory at the address that the processor uses."""
    def wait_event(self, event: int, timeout_s: float) -> bool:
        """Wait for a recorded CUevent, asleep; False if it has not passed after timeout_s. Releases the GIL."""

@final
class PinnedMemory:
    """Host memory pinned for all GPUs of the process, until closed or destroyed. The memory must outlive that."""

    def __init__(self, device: CudaDevice, address: int, num_bytes: int) -> None: ...
    def close(self) -> None:
        """Unpin. Idempotent. No transfer that uses the memory may be under way."""

@final
class CudaMemoryPool:
    """Device memory for tables, argument lists and scratch, lent in the order of streams."""

    def __init__(self, device: CudaDevice, *, reserve_bytes: int, release_threshold_bytes: int) -> None:
        """Takes reserve_bytes once, so that the first copies need not wait, and keeps up to the threshold when unused."""
    def use(self) -> dict[str, int]:
        """used_bytes (lent now), held_bytes (taken from the device now), and each with _high: the most so far."""

@final
class CudaMemory:
    """Memory on the device, from a pool, until destroyed; nothing may use it then. Its contents are undefined."""

    def __init__(self, pool: CudaMemoryPool, num_bytes: int) -> None:
        """RuntimeError if the device has no room."""
    @property
    def address(self) -> int: ...

class CudaWay(enum.Enum):
    """Who moves the bytes: a kernel that reaches over to the host, the copy engine run by run, or the copy engine slot by
    slot to and from scratch memory and a kernel from there."""

    KERNEL = ...
    COPY_ENGINE = ...
    STAGED = ...

@final
class CudaCopierOptions:
    """Thread blocks of each kernel, transfers of a direction at once, copies of a batch, scratch of a staged transfer."""

    def __init__(
        self,
        *,
        num_ctas_gather: int,
        num_ctas_scatter: int,
        num_ctas_staged: int,
        num_streams: int,
        batch_copies: int,
        scratch_bytes: int,
    ) -> None: ...

@final
class CudaProgram:
    """As CopyProgram, on a GPU. Made by CudaCopier.program."""

    @property
    def num_runs(self) -> int:
        """Runs of a block, those that touch on both sides merged."""
    @property
    def is_stageable(self) -> bool:
        """Whether what it holds of a slot has no gaps."""
    @property
    def access_bytes(self) -> int:
        """Widest access that the engine's side and the slot's offsets allow, 1 to 16 bytes."""

@final
class CudaTransfer:
    """A copy under way. Until it has ended, memory on both sides and the event it waits for must stay. Destroying it waits."""

    def wait(self) -> float:
        """Block until the bytes have arrived; returns the milliseconds that the GPU took. Releases the GIL. Idempotent."""
    def hold(self, stream: int) -> None:
        """Make what is queued on a CUstream from now on wait for the bytes. For any thread, beside `wait` too."""

@final
class CudaCopier:
    """Starts copies on streams of its own: loads with the highest priority, stores with the lowest. Thread-safe."""

    def __init__(self, pool: CudaMemoryPool, cubin: bytes, options: CudaCopierOptions) -> None:
        """cubin: copy_blocks.cu for this device; may be empty if only the copy engine is ever asked for."""
    def program(self, pieces: NDArray[np.int64], block_bytes: int) -> CudaProgram:
        """ValueError as CopyProgram's."""
    def start_gather(
        self,
        program: CudaProgram,
        blocks: NDArray[np.int64],
        targets: NDArray[np.uint64],
        way: CudaWay,
        after: int = 0,
    ) -> CudaTransfer:
        """Engine blocks -> pinned slots at targets once the CUevent `after` has happened. Waits for a stream if as many
        transfers of the direction are under way as there are, so a thread should hold one at a time. ValueError, before a
        byte is copied, if the arrays differ in length, a block is negative, a target 0, or blocks with gaps are to be
        staged. Releases the GIL."""
    def start_scatter(
        self,
        program: CudaProgram,
        blocks: NDArray[np.int64],
        sources: NDArray[np.uint64],
        way: CudaWay,
        after: int = 0,
    ) -> CudaTransfer:
        """Pinned slots at sources -> engine blocks; as start_gather."""

# ── learnt costs (native/core/costs) ─────────────────────────────────────────────────────────────────────────────────
@final
class OnlineFit:
    """Least squares with exponential forgetting, coefficients never negative. Not thread-safe.

    Keeps the normal equations only, so an observation costs O(features^2) whatever came before. The observations are
    weighted by the inverse square of the measured value: it is relative errors that count, over four decades of sizes.
    """

    def __init__(self, prior: collections.abc.Sequence[float]) -> None:
        """prior: the coefficients assumed before anything was seen, one per feature, 1 to 4; it decides between features that
        the observations cannot tell apart. 0 where nothing is assumed. ValueError for none or more."""
    @property
    def num_observations(self) -> int: ...
    @property
    def coefficients(self) -> list[float]: ...
    def observe(self, features: collections.abc.Sequence[float], measured: float) -> None:
        """Take in one measurement. measured: > 0. ValueError: not as many features as coefficients."""

# ── index (native/core/index) ────────────────────────────────────────────────────────────────────────────────────────
EVICTION_POLICIES: Final[tuple[str, ...]]
EVICTION_AGE_BOUNDS_S: Final[tuple[float, ...]]

@final
class Index:
    """Which blocks of which sequences are stored, in which tier and slot: a radix tree of runs over all tiers.

    Tiers are numbered 0.. in order of speed here (the facade maps TierName to them). Thread-safe; no call blocks on I/O.
    States per (block, tier): absent -> writing -> ready -> absent. A tier's blocks are prefix-closed in that tier.
    A slot returns to its tier's free list when the index and every Match and Reservation have let go of it.
    """

    def __init__(
        self,
        capacities: list[int],
        *,
        policies: list[str] | None = None,
        evict_batch: list[int] | None = None,
        slru_protected_hits: int = 2,
        hit_reward_s: float = 0.0,
        tokens_per_block: int = 16,
        tenants: list[tuple[list[int], list[int]]] = ...,
    ) -> None:
        """capacities: slots per tier. policies: one of EVICTION_POLICIES per tier, default "lru" each. evict_batch: fewest
        slots freed at once when a tier is full (per tier, default 1). slru_protected_hits: hits from which "slru" protects a
        block. hit_reward_s: what each hit adds to a block's grace under "lru". tokens_per_block: by which "cost" knows how deep
        a block lies. tenants: reserves and limits in slots per tier, of each tenant from number 1 on. ValueError names the argument out of range."""
    def match(
        self, sequence: Sequence, *, limit_blocks: int | None = None, touch: bool = True, now_s: float = 0.0
    ) -> Match:
        """Pin the longest leading run of ready blocks, each in its fastest tier, and mark the path as used.

        Hashes no further than the first miss. O(runs on the path). now_s: seconds on any monotonic clock; only policies
        that age by time use it."""
    def reserve(
        self,
        sequence: Sequence,
        tier: int,
        *,
        owner: int,
        first_block: int = 0,
        limit_blocks: int | None = None,
        now_s: float = 0.0,
        priority: int = 0,
    ) -> Reservation:
        """Insert the blocks that `tier` lacks, among the first limit_blocks, as `writing`, evicting to make room.

        Never evicts a block of the same sequence's own path, a pinned block or a writing one. Takes fewer blocks than asked
        when the tier has no more room (`num_short`). owner: the ticket's number, told to others that attach. In order to stay
        prefix-closed the new blocks are always the ones after the tier's last present block of this sequence; if that lies
        before first_block, nothing is reserved. priority: 0 to 100; blocks of lower priority leave before those of higher,
        whatever the policy; a path keeps the highest priority that it was stored with."""
    def demote(
        self, source: int, target: int, *, owner: int, num_blocks: int, now_s: float = 0.0
    ) -> tuple[Match, Reservation] | None:
        """Prepare to keep in `target` what `source` is about to evict: of the path of the next victim that the target lacks,
        at most num_blocks blocks from the first missing one on, missing ancestors included.

        The Match pins them in `source`, the Reservation takes slots in `target`; block i of the one is block i of the other
        (the Match counts its segments from 0). Evicts from `target` to make room, but nothing that `source` holds
        too, and nothing from `source`: commit, release, then evict there with kept_in=target. None if the next victims lack nothing in `target`, or if it has no room."""
    def commit(self, reservation: Reservation, failed: NDArray[np.bool_] | None = None) -> NDArray[np.uint32]:
        """End a reservation: blocks become ready, except failed ones, which leave the tier with all their descendants in
        it. Returns the slots that became void (to be freed in the tier; its own ones are not taken again before its release).
        Once only; ValueError on the second call."""
    def drop(self, sequence: Sequence, block: int, tier: int) -> NDArray[np.uint32]:
        """Forget a block and its descendants in a tier (its bytes proved wrong). Returns the slots that became void."""
    def evict(
        self,
        tier: int,
        num_blocks: int,
        now_s: float = 0.0,
        *,
        kept_in: int | None = None,
        spared_in: int | None = None,
    ) -> NDArray[np.uint32]:
        """Evict up to num_blocks in the policy's order. Returns the slots that became void.

        kept_in: another tier; ends at the first run that could leave but that this one does not hold ready as well, so that
            what is to be demoted never leaves before it was.
        spared_in: another tier; what this one holds as well is left alone."""
    def clear(self) -> None:
        """Forget everything (weights changed). Open Matches keep their slots until released; open Reservations' commits
        return all their slots as void."""
    def assign(self, root: bytes, tenant: int) -> None:
        """What begins with the root is this tenant's from now on, recovered blocks too; 0: everybody's, as before.

        A tenant's blocks are evicted for others only while it holds more than its reserve in the tier, by the time of their
        last use among all such tenants. At its limit its stores evict its own. Blocks that are there already change hands as if
        they had just been recovered; that walks the tiers. ValueError for an unknown tenant."""
    def shares(self, tier: int) -> tuple[TenantShare, ...]:
        """What each tenant has of a tier, 0 first."""
    @property
    def generation(self) -> int:
        """Number of clears so far."""
    def watch(self, num_changes: int) -> None:
        """Note from now on what becomes ready and what leaves, up to num_changes of them until they are taken; 0: no longer.
        What is restored is not noted."""
    def take_changes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], bool]:
        """Changes since the last call, in order: kinds uint8[n] (0 ready, 1 gone, 2 all gone), tiers uint8[n], keys uint8[n, 16],
        and whether there were more than there was room for; then none is named."""
    def export_blocks(self, tier: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint32]]:
        """Ready blocks, least valuable first but parents before children: parent keys uint8[n, 16], keys uint8[n, 16],
        slots uint32[n]."""
    def restore_blocks(
        self,
        tier: int,
        parents: NDArray[np.uint8],
        keys: NDArray[np.uint8],
        slots: NDArray[np.uint32],
        roots: NDArray[np.uint8],
    ) -> NDArray[np.bool_]:
        """Insert blocks recovered from a tier, given least valuable first, in any topological order. True for each block
        taken; False for one without a path to any block of `roots` (uint8[m, 16]; empty: any parent that is not itself
        among the keys counts as a root), for a duplicate key, or for a slot used twice or out of range (the later entry wins)."""
    def stats(self, tier: int) -> IndexStats: ...
    def check(self) -> None:
        """Verify every invariant by brute force; AssertionError says which one broke. For tests."""

@final
class IndexStats:
    num_slots: int
    num_free: int
    num_ready: int
    num_writing: int
    num_pinned: int  # slots held by at least one Match
    num_runs: int
    num_evicted: int  # since start
    evicted_age_sum_s: float  # over the blocks evicted since start: time of eviction less time of last use
    evicted_age_counts: tuple[int, ...]
    """Evicted blocks by that age: at most EVICTION_AGE_BOUNDS_S[i] and more than the bound before it; the last count is of
    what is older. Their sum is less than num_evicted by what was recovered and never used since."""
    memory_bytes: int  # of the whole index, all tiers
    num_protected: int  # blocks in the better part of a policy that has two: slru, 2q, arc
    num_ghosts: int  # evicted blocks whose keys the policy remembers: 2q, arc
    num_ghost_hits: int  # blocks that came back while they were remembered, since start

@final
class TenantShare:
    """What a tenant has of a tier, in slots."""

    num_held: int  # blocks there, ready or being written
    reserve: int
    limit: int
    num_evicted: int  # since start

@final
class Match:
    """A pinned result of a lookup. Releases its pins when released or destroyed."""

    @property
    def num_blocks(self) -> int: ...
    @property
    def num_pending(self) -> int:
        """Blocks directly behind the match that are being written now."""
    @property
    def generation(self) -> int: ...
    @property
    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """(tier, first block, count), in order, covering [0, num_blocks)."""
    def slots(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint32]:
        """Slot of each block, in the tier of its segment."""
    def packed_slots(self, start: int = 0, stop: int | None = None) -> bytes:
        """`slots` as plans carry them: uint32 little endian."""
    def truncate(self, num_blocks: int) -> None:
        """Unpin the blocks from num_blocks on."""
    def release(self) -> None:
        """Unpin everything. Idempotent."""

@final
class Reservation:
    """Slots taken for blocks that are about to be written. Uncommitted ones are aborted when destroyed. From the commit on its
    slots, also those of blocks that did not become ready, are pinned until `release` or destruction, so that moves that follow
    may read them."""

    @property
    def tier(self) -> int: ...
    @property
    def owner(self) -> int: ...
    @property
    def first_block(self) -> int:
        """Index in the sequence of the first block to write; the ones before are present (ready or being written)."""
    @property
    def num_blocks(self) -> int: ...
    @property
    def num_short(self) -> int:
        """Blocks asked for that found no slot."""
    @property
    def slots(self) -> NDArray[np.uint32]: ...
    @property
    def num_voided(self) -> int: ...
    @property
    def voided(self) -> NDArray[np.uint32]:
        """Slots of this tier evicted to make room; to be freed in the tier before its slots are reserved there."""
    @property
    def attached(self) -> tuple[tuple[int, int, int], ...]:
        """(first block, count, owner) of blocks that another reservation is writing."""
    @property
    def parent_key(self) -> bytes: ...
    def keys(self) -> NDArray[np.uint8]: ...
    @property
    def packed_slots(self) -> bytes:
        """`slots` as plans carry them: uint32 little endian."""
    @property
    def packed_voided(self) -> bytes:
        """`voided` as plans carry them."""
    @property
    def packed_keys(self) -> bytes:
        """`keys()` as plans carry them: 16 bytes each."""
    def release(self) -> None:
        """Unpin. Idempotent; without effect before the commit."""

# ── admission (native/core/admission) ────────────────────────────────────────────────────────────────────────────────
@final
class FrequencySketch:
    """How often blocks were seen lately: a count-min sketch with conservative update, over the current window and the one
    before. Never too low within those, seldom too high. Thread-safe. Memory: 16 to 32 bytes a sighting of the window."""

    def __init__(self, window: int) -> None:
        """window: sightings in a window, 1 to 2^28. ValueError otherwise."""
    def see(self, sequence: Sequence, stop: int) -> None:
        """Count the sequence's leading blocks up to `stop`, each once in the sequence's life."""
    def count_leading(self, sequence: Sequence, stop: int, least: int) -> int:
        """How many of the leading blocks up to `stop` were seen at least that often."""
    def counts(self, keys: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Sightings of each key, at most 30; keys: uint8[n, 16]."""
    @property
    def memory_bytes(self) -> int: ...

# ── ghost index (native/core/ghost) ──────────────────────────────────────────────────────────────────────────────────
@final
class GhostIndex:
    """The hit rate that an LRU cache of any capacity would have had: SHARDS over prefix trees, from a sample of the blocks and
    without their bytes. Thread-safe; memory is fixed from the start, about 50 bytes a sample and 110 KiB."""

    def __init__(
        self,
        *,
        sample_rate: float = 0.01,
        num_samples_max: int = 32768,
        hot_share: float = 0.0005,
        span_blocks: int | None = None,
        window_blocks: int | None = None,
        resolution_blocks: int = 0,
    ) -> None:
        """sample_rate: share of blocks to follow, to start with. num_samples_max: 64 to 2^26; beyond it blocks not used within
        the last span_blocks are forgotten, and if that does not help the rate falls. hot_share: blocks that take a larger share
        of all uses are followed exactly. span_blocks: largest capacity that will be asked for. window_blocks: the curve tells of the last one to
        two times so many blocks; None tells of all. resolution_blocks: below twice this capacity the curve may be wrong, and a
        lookup costs less for it. ValueError out of range."""
    def observe(self, sequence: Sequence, *, limit_blocks: int | None = None) -> None:
        """Count a lookup of the sequence's first blocks, which it hashes, and make them the ones used last."""
    def observe_hashed(self, sequence: Sequence, limit_blocks: int, /) -> None:
        """The same without hashing: blocks that are not hashed yet are counted when the sequence is inserted, each once."""
    def insert(self, sequence: Sequence, *, limit_blocks: int | None = None) -> None:
        """Make them the ones used last, since they were stored; counts only what `observe_hashed` left uncounted."""
    def curve(self, capacities_blocks: NDArray[np.uint64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Hits per block looked up at each capacity, and one standard error of each: how much eight parts of the sample
        differ, how few blocks it holds, and how many uses it lacks. All 0 before the first lookup. ValueError for a capacity above span_blocks."""
    def stats(self) -> GhostStats: ...
    def clear(self) -> None:
        """Forget everything and start again at the first sample_rate."""

@final
class GhostStats:
    num_blocks: int  # observed
    sample_rate: float  # now
    num_samples: int
    num_hot: int
    memory_bytes: int

# ── curve (native/core/curve) ────────────────────────────────────────────────────────────────────────────────────────
# Passes over whole traces, all without the GIL and ended by Ctrl-C. parents: int32[num_blocks], each before its children, -1
# for none; leaves: int32[num_requests], the deepest block of each request, -1 for none. ValueError for anything else.
SAMPLE_PARTS: Final[int]  # 16

def count_uses(parents: NDArray[np.int32], leaves: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many requests use each block."""

def nearest_kept(parents: NDArray[np.int32], kept: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Number the blocks kept (not 0) from 0 on; of each block the number of its nearest ancestor kept, itself included, or -1."""

def lru_hits(
    parents: NDArray[np.int32], leaves: NDArray[np.int32], input_tokens: NDArray[np.int64], tokens_per_block: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """What an LRU cache of 0, 1, 2... blocks hits, up to the first that hits all there is: blocks, and of each request the share
    of its blocks, summed. Then of each last block that was hit and is not full the smallest capacity that hits it, and how many
    tokens it is short of a full one."""

@final
class SampledHits:
    """Counts of a sampled pass, by weight (blocks, tokens, shares of requests) and group (the parts of the sample, then what is
    hot). Memory is fixed, 400 KiB."""

    def uses(self) -> NDArray[np.float64]:
        """Of all uses: float64[3, SAMPLE_PARTS + 1]."""
    def hits(self, capacities: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Of what a cache of each capacity hits: float64[3, SAMPLE_PARTS + 1, len(capacities)]."""

def sampled_lru_hits(
    parents: NDArray[np.int32],
    groups: NDArray[np.uint8],
    leaves: NDArray[np.int32],
    shares: NDArray[np.float64],
    leaf_tokens: NDArray[np.float64],
    *,
    rate: float,
    tokens_per_block: float,
) -> SampledHits:
    """groups: of each block its part of the sample, which counts for 1 / rate blocks in a distance, or SAMPLE_PARTS for a hot one,
    which counts once. shares: one over the blocks of each request. leaf_tokens: tokens of each request in its deepest block."""

@final
class Belady:
    """The most that any cache could hit: Belady's MIN with bypass over prefix trees. Immutable; 8 bytes for each group of a request's
    blocks that are next used at once."""

    def __init__(self, parents: NDArray[np.int32], leaves: NDArray[np.int32]) -> None: ...
    def hits(self, capacity: int) -> NDArray[np.int32]:
        """Of each request the leading blocks hit with so many blocks of room."""

# ── telemetry (native/core/telemetry) ────────────────────────────────────────────────────────────────────────────────
@final
class TallyHistogram:
    @property
    def counts(self) -> tuple[int, ...]:
        """Observations per bucket, one more than there are bounds; one on a bound is in the bucket below it."""
    @property
    def total(self) -> float: ...

@final
class LookupCounts:
    num_missed: int
    num_partial: int
    num_full: int
    num_tokens: int
    num_blocks: int
    num_pending: int
    num_declined: int
    tokens_per_block: int  # of the last lookup; 0 before the first
    seconds: TallyHistogram
    hit_ratio: TallyHistogram  # of lookups of at least one block
    @property
    def hits(self) -> dict[str, TallyHistogram]:
        """Blocks that a tier would serve, of the lookups in which it would serve any."""

@final
class LookupTally:
    """Counts lookups. Thread-safe; a call takes well below a microsecond and never waits for another thread's turn."""

    def __init__(
        self,
        *,
        seconds_bounds: tuple[float, ...],
        hit_ratio_bounds: tuple[float, ...],
        hit_blocks_bounds: tuple[float, ...],
    ) -> None:
        """Upper bounds of the histograms' buckets, ascending, inclusive."""
    def observe(
        self,
        seconds: float,
        num_tokens: int,
        tokens_per_block: int,
        hits: collections.abc.Sequence[tuple[str, int]],
        num_pending: int,
        num_declined: int,
    ) -> None:
        """hits: (tier, blocks that it would serve), a tier at most once, 8 at most; ValueError beyond that."""
    def read(self) -> LookupCounts:
        """The counts so far."""

# ── disk (native/core/disk) ──────────────────────────────────────────────────────────────────────────────────────────
@final
class BlockFiles:
    """Preallocated files that hold fixed-size slots, striped over directories. Blocking calls; any thread; short I/O is a failure.

    Transfers move whole slots: memory of a block is slot_bytes long and page-aligned. Only block_bytes of it are checked."""

    def __init__(
        self,
        paths: list[str],
        *,
        num_slots: int,
        slot_bytes: int,
        block_bytes: int,
        queue_depth: int,
        write_bytes_beside_reads: int = 1 << 20,
        engine: str = "auto",
        direct: bool = True,
    ) -> None:
        """paths: one file per directory; slot s lies in file s % len(paths) at (s // len(paths)) * slot_bytes. slot_bytes: multiple of
        4096. write_bytes_beside_reads: what a write call keeps in flight while a read runs; one request at least. engine: "auto",
        "io_uring" or "threads". direct: ask for O_DIRECT. Files are grown or cut to size. Raises OSError with the path."""
    @property
    def engine(self) -> str: ...
    @property
    def engine_reason(self) -> str:
        """Why `engine` is not what "auto" would prefer, or ""."""
    @property
    def direct(self) -> bool: ...
    @property
    def direct_reason(self) -> str:
        """Why the page cache is in use, or ""."""
    @property
    def allocation_reason(self) -> str:
        """Why space was not allocated ahead, or ""."""
    @property
    def memory_reason(self) -> str:
        """Why memory in use is not registered with io_uring, or "". It may come later than the memory."""
    @property
    def registered_bytes(self) -> int:
        """Pinned now, by what was registered."""
    def use_memory(self, address: int, num_bytes: int, unit_bytes: int) -> None:
        """Register memory with io_uring, piece by piece as blocks are moved from and to it: whole pages, with units of equal size one
        behind another. It stays mapped until it is forgotten, or until this is closed. Waits for calls under way."""
    def forget_memory(self, address: int) -> None:
        """Let go of memory that begins at the address, if it was in use. Waits for calls under way."""
    def write(
        self,
        slots: NDArray[np.uint32],
        addresses: NDArray[np.uint64],
        seeds: NDArray[np.uint64],
        seconds: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        """Write blocks; returns errno (0: fine) and checksum per block. seeds: what ties each block to its identity.
        seconds: filled with what each block took, from its turn in the queue to its outcome, checksum included."""
    def read(
        self,
        slots: NDArray[np.uint32],
        addresses: NDArray[np.uint64],
        seeds: NDArray[np.uint64],
        checksums: NDArray[np.uint64],
        seconds: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int32]:
        """Read blocks and verify; returns per block 0, an errno, or CHECKSUM_MISMATCH. seconds: as in write."""
    def sync(self) -> None:
        """Make every block written so far survive the machine's failure. Raises OSError."""

    def close(self) -> None:
        """Let go of the files, once calls in progress have ended. Any later call raises ValueError."""

CHECKSUM_MISMATCH: Final[int]  # -1

@final
class Recovered:
    @property
    def parents(self) -> NDArray[np.uint8]: ...  # uint8[n, 16]; each access copies
    @property
    def keys(self) -> NDArray[np.uint8]: ...  # uint8[n, 16]
    @property
    def slots(self) -> NDArray[np.uint32]: ...
    @property
    def checksums(self) -> NDArray[np.uint64]: ...
    torn_bytes: Final[int]  # bytes of the journal's tail that were cut off
    corrupt_records: Final[int]  # places where records were missing or unreadable
    out_of_range: Final[int]  # entries for slots >= num_slots, left out

@final
class Journal:
    """Append-only, checksummed record of which key lies in which slot, with checkpoints. One writer."""

    def __init__(self, directory: str, *, num_slots: int) -> None:
        """Opens or creates; recovery happens in `recover`, which must be called once before any append. Raises OSError."""
    def recover(self) -> Recovered:
        """Replay checkpoint and segments, least recently written first. Cuts a torn tail."""
    def put(
        self, parent: bytes, keys: NDArray[np.uint8], slots: NDArray[np.uint32], checksums: NDArray[np.uint64]
    ) -> None:
        """Record consecutive blocks. OSError (disk full, say) leaves the journal as it was and usable; so for `free`."""
    def free(self, slots: NDArray[np.uint32]) -> None: ...
    def begin_checkpoint(self) -> None:
        """Start a new segment; what is appended from now on is replayed after the coming checkpoint."""
    def write_checkpoint(
        self,
        parents: NDArray[np.uint8],
        keys: NDArray[np.uint8],
        slots: NDArray[np.uint32],
        checksums: NDArray[np.uint64],
    ) -> None:
        """Durably replace everything before the segment that begin_checkpoint started. An empty one empties the journal for good."""
    @property
    def appended_bytes(self) -> int:
        """Bytes of all segments since the last checkpoint, recovered ones included."""
    @property
    def num_segments(self) -> int: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...

def replay_journal(directory: str, *, num_slots: int) -> Recovered:
    """What `recover` would return, without changing anything; for looking at a cache."""

# ── traces (native/core/traces) ──────────────────────────────────────────────────────────────────────────────────────
@final
class TraceTree:
    """The blocks of a request trace, numbered while it is read. Not thread-safe. 20 to 40 bytes a different block."""

    def __init__(self) -> None: ...
    def add(self, names: list[int] | NDArray[np.uint64], scope: int = 0) -> int:
        """Walk a path from its first block on and add what is new of it; return its deepest block, -1 for none. Names mean the
        same only within one scope and below the same parent. A list's are read as they are, without numpy, a negative one as
        its two's complement; OverflowError beyond 64 bits, and nothing is added."""
    @property
    def num_blocks(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    def parents(self) -> NDArray[np.int32]:
        """Of each block its parent, -1 for a first one; a copy."""

# Of finished trees, in which parents come before children; ValueError where they do not, or a leaf is none of the tree's.
def trace_depths(parents: NDArray[np.int32]) -> NDArray[np.int32]: ...
def trace_first_uses(parents: NDArray[np.int32], leaves: NDArray[np.int32]) -> NDArray[np.int32]:
    """Of each block the first request whose path holds it; len(leaves) if none does."""

def trace_paths(parents: NDArray[np.int32], depths: NDArray[np.int32], leaves: NDArray[np.int32]) -> NDArray[np.int32]:
    """The paths of the leaves one behind the other, each from its first block on."""

# ── simulated links (native/core/simulate) ───────────────────────────────────────────────────────────────────────────
@final
class LinkUse:
    """What a link was used for."""

    @property
    def blocks(self) -> int:
        """That it brought."""
    @property
    def busy_s(self) -> float:
        """Seconds in which it moved bytes."""
    @property
    def wait_s(self) -> float:
        """Seconds that parts waited for their turns, summed."""

class SimulatedLinks:
    """The modelled links of one cache, what runs on them, and the virtual clock of all that happens. Not thread-safe."""

    def __init__(self) -> None: ...
    def add_lane(
        self, *, latency_s: float, block_s: float, chunk_blocks: int, loading: bool, shares_device: bool
    ) -> int:
        """Returns the lane's number. shares_device: with the lane added before, behind whose moves this one's go."""
    @property
    def now_s(self) -> float: ...
    def schedule(self, time_s: float) -> int:
        """Ask for an event; returns its number. ValueError: the time is past."""
    def run_events(
        self, on_event: Callable[[int], None], on_move_end: Callable[[int, int, int, float, float], None]
    ) -> None:
        """Run until nothing is left to happen. What the callbacks raise ends the run.

        on_event: takes the number that `schedule` returned. on_move_end: takes ticket, move, leading blocks that arrived, seconds
        that bringing these takes alone, and the rest of the seconds since the plan was submitted."""
    def submit(self, ticket: int, moves: list[tuple[int, int, int, int]]) -> None:
        """moves: of each its lane, first block, blocks, and the move before it whose blocks it takes further, -1 for none."""
    def cancel(self, ticket: int) -> None:
        """End what has not started of a plan, during a run. Unknown tickets are left alone."""
    def num_moves(self, lane: int) -> int: ...
    def num_blocks(self, lane: int) -> int: ...
    def use(self, lane: int) -> LinkUse: ...
    @property
    def num_open(self) -> int:
        """Plans with moves that have not ended."""

# ── the node's hot path (native/core/node) ───────────────────────────────────────────────────────────────────────────
@final
class NodeFrontLimits:
    """What a front keeps at most. ValueError comes from `NodeFront`, and names what makes no sense."""

    def __init__(
        self,
        *,
        tokens_per_block: int = 16,
        origin: int = 0,
        clients: int = ...,
        connections: int = ...,
        lookups: int = ...,
        sequences: int = ...,
        keys: int = ...,
        roots: int = ...,
        inbox_messages: int = ...,
        inbox_bytes: int = ...,
        outbox_bytes: int = ...,
        looked: int = ...,
        read_tier: int | None = None,
    ) -> None:
        """tokens_per_block, origin: of the sequences that it makes. connections: of all clients, admitted or not; further ones
        are closed at once. lookups: open ones of a client. sequences, keys: of a client; the least recently used sequences are
        dropped. roots: of a client. inbox_messages: of a connection, not taken by `next`; it is not read further then.
        inbox_bytes: the same for all connections. outbox_bytes: of a connection that does not read; it is cut then. looked:
        events of lookups and reads not taken; further ones are dropped and counted. read_tier: whose slots clients are told."""

@final
class NodeFrontCounts:
    connections: int  # now
    clients: int  # now
    lookups: int  # since start, as all below
    refused: int  # connections: of another user, or too many
    malformed: int  # datagrams
    overflowed: int  # connections cut because they did not read
    looked_dropped: int  # events

@final
class NodeFront:
    """A node's listener, all its connections, its clients' sequences (keys only) and open lookups, served by one native thread
    without the GIL. See native/core/node/front.hpp and tiercel.node.protocol. Thread-safe; only `next` and `close` wait."""

    def __init__(self, listener: int, index: Index, limits: NodeFrontLimits) -> None:
        """listener: descriptor of a listening SOCK_SEQPACKET socket; a duplicate is kept, and the socket is made non-blocking.
        Starts the thread. ValueError for limits that make no sense, OSError if the system refuses."""
    def next(
        self, timeout_s: float
    ) -> list[
        tuple[Literal["connected"], int, int]
        | tuple[Literal["message"], int, bytes]
        | tuple[Literal["left"], int, str]
        | tuple[Literal["looked"], int, Sequence, int, int, float, list[tuple[int, int, int]], int]
        | tuple[Literal["read"], int, Sequence, int, int, float]
    ]:
        """Wait for events and take up to 256, in order; none after timeout_s or when closed. Lookups and reads alone are told 10 ms
        late, together.

        ("connected", connection, process): of the same user; others were closed before
        ("message", connection, body): a MESSAGE, its header checked and cut off
        ("left", connection, reason): once for each connection, behind its messages; `cut` and `drop_client` lead here too
        ("looked", client, sequence, limit_blocks, matched_blocks, seconds, segments, num_pending): after it was answered;
            segments are (tier, first block, count)
        ("read", client, sequence, first_block, num_blocks, seconds): blocks of the `read_tier` that a client read itself
        """
    def admit(self, connection: int, client: int, calls: bool) -> None:
        """The connection speaks for the client now; before, anything but a MESSAGE is malformed. Call it before the answer that
        tells the peer so. calls: whether it may look up; without, the client is new if it is not known. Nothing happens if the
        connection is gone. ValueError for an unknown client, one too many, or a connection admitted before."""
    def allow_root(self, client: int, root: bytes) -> None:
        """Let the client open sequences of that root; nothing happens for an unknown one. ValueError for too many."""
    def send(self, connection: int, data: bytes, fds: list[int] = ...) -> bool:
        """Send a datagram, its header included, with duplicates of descriptors, now or as soon as the peer reads. False if the
        connection is gone, or cut because its outbox is full. ValueError for more than 128 KiB or 64 descriptors."""
    def cut(self, connection: int) -> None:
        """End a connection: nothing of it is read any more. Nothing happens if it is gone."""
    def sequence(self, client: int, number: int) -> Sequence | None:
        """Its keys so far, and those that still come; for reading only. None if it is not known, or was dropped."""
    def take_match(self, client: int, lookup: int) -> tuple[Match, Sequence] | None:
        """The pins of a lookup, which are the caller's now, and the sequence that was looked up. None if it is not known: released, taken, or never made."""
    def return_match(self, client: int, lookup: int, match: Match, sequence: Sequence) -> None:
        """Put a lookup that was taken back, with its pins: the client may release it, or it may be taken again. The match is empty
        afterwards. Of an unknown client the pins are released."""
    def drop_client(self, client: int) -> None:
        """Cut the client's connections, release its lookups and forget all of it."""
    def client_stats(self, client: int) -> tuple[int, int, int, int]:
        """Open lookups, sequences, keys, bytes in outboxes; all 0 for an unknown client."""
    def counts(self) -> NodeFrontCounts: ...
    def close(self) -> None:
        """End the thread, close all connections, release everything. Idempotent. Later calls do nothing."""

@final
class NodeFound:
    """What a node found of a sequence."""

    state: int  # 0: ok; 1: the node has lost the sequence: open it and send all keys again; 2: too many open lookups
    lookup: int  # 0: nothing is pinned, since nothing was found that the engine lacks
    matched_blocks: int
    num_pending: int
    num_known: int  # leading blocks whose keys the node has now
    segments: list[tuple[int, int, int]]  # tier, first block, count
    packed_slots: bytes  # uint32 each, of the blocks found, if the client may read them itself; else empty

@final
class NodeCall:
    """A client's end of a connection to a node. Thread-safe: one call waits for the other.

    Raises TimeoutError at its deadline, and another OSError when the node closed the connection or said what it may not;
    after either the connection is of no more use, and says so with an OSError. All of it releases the GIL."""

    def __init__(self, fd: int) -> None:
        """fd: a connected SOCK_SEQPACKET socket; a duplicate is kept."""
    def lookup(
        self,
        sequence: Sequence,
        remote: int,
        num_known: int,
        limit_blocks: int | None,
        engine_blocks: int,
        timeout_s: float,
    ) -> NodeFound:
        """Hash, send and look up the leading blocks of a sequence. remote: its number at the node. num_known: leading blocks
        whose keys the node was sent before; 0 opens the sequence first. engine_blocks: leading ones that the engine holds."""
    def end_read(self, lookup: int, first_block: int, num_blocks: int, seconds: float, timeout_s: float) -> bool:
        """End a lookup of which slots were read. False if they were not its own all the time: what was read is void."""
    def request(self, data: bytes, timeout_s: float) -> bytes:
        """Send a datagram, its header included, and return the one that answers it, likewise."""
    def send(self, data: bytes, timeout_s: float = 1.0) -> None: ...
    def send_keys(self, sequence: Sequence, remote: int, num_known: int, stop: int, timeout_s: float = 1.0) -> None:
        """Hash and send the keys of blocks [num_known, stop). ValueError if stop lies behind the sequence's blocks."""
    def close(self) -> None:
        """End the connection, and with it whatever waits on it. Idempotent."""
