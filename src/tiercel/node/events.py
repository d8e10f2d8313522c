"""Messages of an event connection: what a node asks and tells a client, and what a client tells it without an answer."""

from typing import Annotated

from msgspec import Meta

from tiercel.node.protocol import (
    REGIONS_MAX,
    Blocks,
    Count,
    Message,
    Name,
    Number,
    Pages,
    Part,
    Seconds,
    Statuses,
    Text,
    Token,
)


class Copy(Message, frozen=True):
    """Copy blocks between a client's memory and a region.

    Attributes:
        ticket: the client's own number.
        first_block: the first block, of the target or source that the ticket was launched with.
        loading: into the client's memory, else out of it.
        region: index in `Welcome.regions`.
        pages: where each block begins in the region, in pages of 4096 bytes.
    """

    number: Number
    ticket: Number
    first_block: Blocks
    loading: bool
    region: Annotated[int, Meta(ge=0, lt=REGIONS_MAX)]
    pages: Pages


class CancelCopy(Message, frozen=True):
    """A copy's outcome is not wanted any more: what has not started must not start."""

    number: Number


class Done(Message, frozen=True):
    """A copy touches nothing any more. failure: what went wrong, "" for nothing."""

    number: Number
    failure: Text


class SourceFree(Message, frozen=True):
    """The engine's memory of a store may be written again."""

    ticket: Number


class TierCount(Part, frozen=True):
    """Blocks of a tier, by `TierName`."""

    tier: Annotated[int, Meta(ge=0, lt=8)]
    num_blocks: Blocks


class Ended(Message, frozen=True):
    """A ticket has its outcome.

    Attributes:
        outcome: the value of an `Outcome`.
        statuses: of each of its blocks.
        blocks: as `TransferResult.blocks_by_tier`.
    """

    ticket: Number
    outcome: Name
    statuses: Statuses
    blocks: Annotated[list[TierCount], Meta(max_length=8)]
    seconds: Seconds


class Cancel(Message, frozen=True):
    """Nobody waits for a ticket any more, and the client's memory is fenced off already."""

    ticket: Number


class Observe(Message, frozen=True):
    """As `Cache.observe_prefill`."""

    cached_tokens: Count
    computed_tokens: Count
    seconds: Seconds


class Declined(Message, frozen=True):
    """Blocks of these tiers were found and not thought worth loading, for what that costs."""

    tiers: Annotated[list[Annotated[int, Meta(ge=0, lt=8)]], Meta(max_length=64)]


class Recompute(Message, frozen=True):
    """As `Cache.observe_recompute`."""

    reason: Text


class NoteText(Message, frozen=True):
    """As `Cache.note`."""

    text: Text
    kind: Name


class Bye(Message, frozen=True):
    """A client ends in order: nothing of its is under way."""


class Left(Message, frozen=True):
    """Nothing is under way any more of an earlier connection of this process, which ended without a `Bye`.

    Attributes:
        client, token: as that connection's `Welcome` had them.
    """

    client: Number
    token: Token
