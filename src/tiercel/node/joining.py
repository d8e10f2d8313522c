"""Messages of a connection's beginning."""

from typing import Annotated

from msgspec import Meta

from tiercel.node.protocol import REGIONS_MAX, Count, Message, Name, Number, Part, Text, Token


class Hello(Message, frozen=True):
    """A client's first message on its event connection.

    Attributes:
        name: what the configuration may know it by, and what `tiercel node status` shows.
        geometry: what its blocks are, as `BlockGeometry.fingerprint_parts` tells it; None: whatever the node has.
    """

    name: Name
    geometry: Annotated[dict[Text, Text | Number], Meta(max_length=32)] | None


class Region(Part, frozen=True):
    """A memory that the node shares; its file comes along.

    Attributes:
        resident: whether its pages are there already.
        unit_bytes: size of what lies in it one behind another, such as slots.
    """

    num_bytes: Annotated[int, Meta(gt=0, lt=2**44)]
    resident: bool
    unit_bytes: Annotated[int, Meta(gt=0, lt=2**40)]


class CacheFacts(Part, frozen=True):
    """What a client must know of the node's cache.

    Attributes:
        model, config: the node's own, as a configuration document's `model_config` and `cache_config` tell them.
        order: of the axes in a slot.
        fingerprint: of the blocks.
    """

    model: dict[str, object]
    config: dict[str, object]
    order: Name
    fingerprint: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Welcome(Message, frozen=True):
    """The node's answer to `Hello`, with a file descriptor for each region, and one more for the board, which comes last.

    Attributes:
        calls_max: connections for calls that the client may have.
    """

    client: Number
    token: Token
    regions: Annotated[list[Region], Meta(max_length=REGIONS_MAX)]
    facts: CacheFacts
    calls_max: Count


class Refused(Message, frozen=True):
    """Either side cannot go on, and why. The connection ends."""

    reason: Text


class Ready(Message, frozen=True):
    """A client has mapped the regions."""


class Join(Message, frozen=True):
    """The first message on a call connection."""

    client: Number
    token: Token


class Joined(Message, frozen=True):
    """The answer to it."""
