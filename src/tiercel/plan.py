"""From a lookup and its costs to a plan of moves. Pure functions over frozen data.

A `Plan` is the only thing that goes down to the data half, `Completion`s are the only thing that comes back. Both are
made of integers and bytes, so they cross a process boundary as they are. `control` calls this module; `transfer` reads
its messages; nothing here knows a tensor, a thread or a clock.

A plan is applied in the order in which plans were made: first `frees`, then the reservations of its moves' target slots,
then the moves, each after the one it names.
"""

import enum
import sys
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.costs import PrefillCurve, TransferCost
from tiercel.tiers.base import Slots, TierName

_LITTLE_ENDIAN = sys.byteorder == "little"
_PACKED_SLOT = np.dtype("<u4")

NO_MOVE = -1
"""`Move.after` of a move that waits for no other."""


class OperationKind(enum.Enum):
    """What an operation is for."""

    LOAD = "load"
    STORE = "store"
    PREFETCH = "prefetch"
    DEMOTE = "demote"
    """Copy to a slower tier what a faster one holds; nobody asked for it."""


class LoadPolicy(enum.Enum):
    """Whether a stored block is loaded or recomputed."""

    AUTO = "auto"
    """Load the leading blocks that are cheaper to load than to recompute."""
    ALWAYS = "always"
    NEVER = "never"


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """Copy consecutive blocks of one sequence from one tier to another.

    Slots are uint32 little endian, one per block; `b""` for the GPU tier, whose memory is bound when the plan is launched
    (block i of the operation is block i of that memory).

    Attributes:
        first_block: position in the operation, whose block 0 is block `Plan.first_block` of the sequence.
        after: index, in the plan, of the move whose target is this move's source, or NO_MOVE.
        parent_key: of a move into a tier, the key of the block before its first one.
        keys: of a move into a tier, its blocks' keys, 16 bytes each.
    """

    source: TierName
    target: TierName
    first_block: int
    num_blocks: int
    source_slots: bytes
    target_slots: bytes
    after: int = NO_MOVE
    parent_key: bytes = b""
    keys: bytes = b""


class Free(msgspec.Struct, frozen=True, kw_only=True):
    """Slots of a tier that hold nothing any more; uint32 little endian."""

    tier: TierName
    slots: bytes


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Ordered moves that satisfy one load, store or prefetch.

    Attributes:
        ticket: number of the ticket that owns the plan.
        first_block: index in the sequence of the operation's block 0.
        num_blocks: blocks that the operation covers, moved or not.
        deadline_s: seconds after the launch when every move must have ended.
    """

    ticket: int
    kind: OperationKind
    first_block: int
    num_blocks: int
    moves: tuple[Move, ...]
    frees: tuple[Free, ...]
    deadline_s: float


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """How one move ended, block by block.

    Attributes:
        move: index of the move in its plan.
        statuses: one `BlockStatus` byte per block of the move.
        num_bytes: payload bytes that arrived.
        busy_s: seconds in which the move's bytes were being moved.
        queued_s: seconds between the launch and the first byte.
    """

    ticket: int
    move: int
    statuses: bytes
    num_bytes: int
    busy_s: float
    queued_s: float


class Segment(msgspec.Struct, frozen=True):
    """Consecutive blocks of a sequence that lie in one tier."""

    tier: TierName
    first_block: int
    num_blocks: int


def pack_slots(slots: Slots) -> bytes:
    """Turn slot numbers into the form that messages carry."""
    return slots.tobytes() if _LITTLE_ENDIAN else slots.astype("<u4").tobytes()


def unpack_slots(packed: bytes) -> Slots:
    """Turn a message's slot numbers back into an array; read-only."""
    return np.frombuffer(packed, _PACKED_SLOT)


def pack_keys(keys: NDArray[np.uint8]) -> bytes:
    """Turn uint8[num_blocks, 16] keys into the form that messages carry."""
    return keys.tobytes()


def unpack_keys(packed: bytes) -> NDArray[np.uint8]:
    """Turn a message's keys back into uint8[num_blocks, 16]; read-only."""
    return np.frombuffer(packed, dtype=np.uint8).reshape(-1, 16)


def choose_split(
    segments: Sequence[Segment],
    *,
    num_tokens: int,
    tokens_per_block: int,
    block_bytes: int,
    costs: Sequence[TransferCost],
    prefill: PrefillCurve,
) -> int:
    """Say how many leading blocks to load so that load plus recompute of the rest takes least time.

    Within a segment the load time is linear in the number of blocks and the saved prefill is convex, so the total is concave
    and its minimum lies at a segment's end: only those points are compared. Ties go to loading more, which spares the engine.

    Args:
        segments: what is stored, in order, at least one; the engine holds what comes before the first.
        num_tokens: length of the prompt, at least as long as the segments cover.
        costs: cost of reaching the engine, one per segment.
        prefill: the engine's cost of computing tokens.

    Returns:
        The block before which to end loading: the first segment's first, or a segment's end.
    """
    best_blocks = segments[0].first_block
    held_tokens = min(best_blocks * tokens_per_block, num_tokens)
    best_seconds = prefill.seconds(held_tokens, num_tokens - held_tokens)
    load_seconds = 0.0
    for segment, cost in zip(segments, costs, strict=True):
        load_seconds += cost.seconds(segment.num_blocks * block_bytes)
        blocks = segment.first_block + segment.num_blocks
        cached_tokens = min(blocks * tokens_per_block, num_tokens)
        seconds = load_seconds + prefill.seconds(cached_tokens, num_tokens - cached_tokens)
        if seconds <= best_seconds:
            best_blocks, best_seconds = blocks, seconds
    return best_blocks


def cut_segments(segments: Iterable[Segment], stop: int, *, first_block: int = 0) -> tuple[Segment, ...]:
    """Return the part of the segments that covers the blocks [first_block, stop)."""
    parts = ((s.tier, max(s.first_block, first_block), min(s.first_block + s.num_blocks, stop)) for s in segments)
    return tuple(Segment(tier, begin, end - begin) for tier, begin, end in parts if begin < end)
