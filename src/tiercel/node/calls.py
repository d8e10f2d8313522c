"""Calls of clients, and their answers."""

from typing import Annotated, Final

from msgspec import Meta

from tiercel.node.protocol import (
    LOADS_MAX,
    MESSAGE_BYTES_MAX,
    Blocks,
    Count,
    Key,
    Message,
    Name,
    Number,
    Part,
    Priorities,
    Seconds,
    Text,
)

CAPACITIES_MAX: Final = 4096
"""Capacities of one `AskHitCurve`."""


class OpenNamespace(Message, frozen=True):
    """Ask for a namespace's root key. Answered by `Root`."""

    name: Text


class Load(Part, frozen=True):
    """One load: blocks [first_block, first_block + num_blocks) of what a lookup found."""

    ticket: Number
    lookup: Number
    first_block: Blocks
    num_blocks: Blocks
    on_gpu: bool


class Launch(Message, frozen=True):
    """Launch loads, all or none. Answered by `Launched`."""

    loads: Annotated[list[Load], Meta(max_length=LOADS_MAX)]
    timeout_s: Seconds
    request_id: Text | None


class Prefetch(Message, frozen=True):
    """Bring what a lookup found to the fastest tier. Answered by `Launched`."""

    ticket: Number
    lookup: Number
    first_block: Blocks
    num_blocks: Blocks
    timeout_s: Seconds
    request_id: Text | None


class Store(Message, frozen=True):
    """Store blocks [first_block, first_block + num_blocks) of a sequence. Answered by `Launched`.

    Attributes:
        sequence: whose keys up to the last of these blocks were sent before.
        priority: as of `Cache.store`.
    """

    ticket: Number
    sequence: Count
    first_block: Blocks
    num_blocks: Blocks
    priority: Priorities
    timeout_s: Seconds
    on_gpu: bool
    request_id: Text | None


class CountHits(Message, frozen=True):
    """How many leading blocks of these keys are stored? Pins nothing. Answered by `Hits`; for clients without memory.

    Attributes:
        keys: 16 bytes each.
    """

    namespace: Text
    keys: Annotated[bytes, Meta(max_length=64 << 10)]


class PrefetchKeys(Message, frozen=True):
    """Bring the leading stored blocks of these keys to the fastest tier. Answered by `Hits`; for clients without memory."""

    namespace: Text
    keys: Annotated[bytes, Meta(max_length=64 << 10)]
    timeout_s: Seconds


class Reset(Message, frozen=True):
    """Forget every block. Answered by `Okay`."""


class Settle(Message, frozen=True):
    """As `Cache.settle`. Answered by `Settled`."""

    timeout_s: Seconds


class AskStatus(Message, frozen=True):
    """Answered by `Status`."""


class AskStats(Message, frozen=True):
    """Answered by `Stats`."""


class AskHitCurve(Message, frozen=True):
    """As `Cache.hit_curve`. Answered by `HitCurveAnswer`."""

    capacities_blocks: Annotated[list[Number], Meta(max_length=CAPACITIES_MAX)] | None


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Failed(Message, frozen=True):
    """A call failed. error: the name of a class of `tiercel.errors`, or of a built-in exception."""

    error: Name
    text: Text


class Okay(Message, frozen=True):
    """Done."""


class Root(Message, frozen=True):
    """A namespace's root key.

    Attributes:
        tokens_per_block: 0 if that was told already, in `Welcome`.
    """

    root: Key
    tokens_per_block: Count = 0


class Launched(Message, frozen=True):
    """Blocks that each ticket covers."""

    num_blocks: Annotated[list[Blocks], Meta(max_length=LOADS_MAX)]


class Hits(Message, frozen=True):
    """Leading blocks that are stored."""

    num_blocks: Blocks


class Settled(Message, frozen=True):
    """Whether nothing was under way in time."""

    settled: bool


class ClientStatus(Part, frozen=True):
    """One client."""

    client: Number
    name: Name
    process: Number
    connected_s: float
    tickets: Count
    lookups: Count
    sequences: Count
    copies: Count
    outbox_bytes: Number
    namespaces: Count


class Status(Message, frozen=True):
    """What `tiercel node status` shows beside `Stats`.

    Attributes:
        lanes: moves that wait or run, by lane.
        refused: connections. malformed: messages.
        unread: connections cut because their client did not read.
        unobserved: lookups that statistics and policies did not see, because the node was behind.
        remote: what the door for other machines counts, by name; empty without one.
    """

    version: Name
    process: Number
    started_s: float
    clients: Annotated[list[ClientStatus], Meta(max_length=4096)]
    lanes: dict[Name, Count]
    refused: Number
    malformed: Number
    unread: Number
    unobserved: Number
    remote: dict[Name, Number]


class Stats(Message, frozen=True):
    """`Cache.stats()` as JSON."""

    snapshot: Annotated[bytes, Meta(max_length=MESSAGE_BYTES_MAX - 1024)]


class HitCurveAnswer(Message, frozen=True):
    """`Cache.hit_curve()` as JSON."""

    curve: Annotated[bytes, Meta(max_length=MESSAGE_BYTES_MAX - 1024)]
