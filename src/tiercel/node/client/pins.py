"""What stands, in a client, for the pins of a lookup, which the node holds. Used by `client` only."""

from typing import Protocol, final


class Epochs:
    """Which lookups may be launched: those of the connection that there is, since the cache was last reset from here; what a
    `control.Lookup` was made by."""

    def __init__(self) -> None:
        self.generation = 0

    def end(self) -> None:
        """Let no lookup of before be launched any more."""
        self.generation += 1


class GivesBack(Protocol):
    """What tells the node of lookups that are not wanted any more."""

    def discard_lookup(self, lookup: int) -> None:
        """Have it told soon. Called from destructors, on any thread."""
        ...

    def release_lookup(self, lookup: int) -> None:
        """Tell it now."""
        ...


@final
class RemotePins:
    """The pins of one lookup; given back when released or destroyed."""

    __slots__ = ("generation", "link", "lookup", "num_pending", "packed_slots")

    def __init__(
        self, lookup: int, num_pending: int, generation: int, link: GivesBack, packed_slots: bytes = b""
    ) -> None:
        """Take what a lookup found.

        Args:
            lookup: the node's number of it, 0 if it holds nothing.
            generation: of the epochs in which it was asked for.
            link: the connection that it was asked on.
            packed_slots: of the blocks found, uint32 each, if this process may read them itself.
        """
        self.lookup = lookup
        self.num_pending = num_pending
        self.generation = generation
        self.link = link
        self.packed_slots = packed_slots

    def truncate(self, num_blocks: int, /) -> None:
        """Let go of the blocks from num_blocks on. What lies before keeps the others pinned until the launch tells the node."""
        if num_blocks == 0:
            self.release()

    def hand_over(self) -> None:
        """Somebody else gives the pins back: the node's operation, or who reads the blocks here."""
        self.lookup = 0

    def release(self) -> None:
        """Give the pins back. Idempotent."""
        lookup, self.lookup = self.lookup, 0
        if lookup:
            self.link.release_lookup(lookup)

    def __del__(self) -> None:
        if self.lookup:
            self.link.discard_lookup(self.lookup)
