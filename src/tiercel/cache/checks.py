"""A caller's mistakes, refused at the edge before anything is started. Used by facades, in process and of a node."""

import operator
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tiercel.control import Lookup
from tiercel.hashing import Sequence
from tiercel.layout import BlockGeometry, EngineBlocks
from tiercel.telemetry.logs import check_request_id
from tiercel.transfer import RemoteBlocks, as_seconds

Blocks = EngineBlocks | RemoteBlocks
"""Blocks of an engine: in memory that this process reaches, or that other processes hold."""

_FIRST_BLOCK_MAX = 2**31
"""Blocks that no sequence reaches, of one token or more each."""

_TIMEOUT_S_MAX = 86400.0
"""Longest deadline of an operation, as of `transfer_timeout_s`."""


class ArgumentChecks:
    """What the arguments of one cache's calls must be.

    Attributes:
        origin: by which a sequence is known as one for this cache's fingerprint.
    """

    def __init__(self, geometry: BlockGeometry, fingerprint: bytes, timeout_s: float) -> None:
        """timeout_s: the deadline of an operation that is given none."""
        self._geometry = geometry
        self._tokens_per_block = geometry.tokens_per_block
        self._timeout_s = timeout_s
        self.origin = int.from_bytes(fingerprint[:8], "little") or 1

    def sequence(self, sequence: Sequence) -> None:
        """Raise TypeError for something else than a sequence, ValueError for one of another model or block size."""
        if not isinstance(sequence, Sequence):
            raise TypeError(f"a {type(sequence).__name__} is no sequence; make one of tokens with Cache.sequence")
        if sequence.origin != self.origin:
            if sequence.tokens_per_block != self._tokens_per_block:
                raise ValueError(
                    f"the sequence has {sequence.tokens_per_block} tokens a block, this cache {self._tokens_per_block}; "
                    f"make it with Cache.sequence"
                )
            raise ValueError("the sequence was made for another model or by hand; make it with this cache's `sequence`")

    def lookup(
        self, sequence: Sequence, limit_tokens: int | None, engine_tokens: int, request_id: str | None
    ) -> int | None:
        """Return a lookup's limit, at most the sequence's tokens. Raises TypeError or ValueError for a wrong argument."""
        self.sequence(sequence)
        check_request_id(request_id)
        if _integer("engine_tokens", engine_tokens) < 0:
            raise ValueError(f"engine_tokens = {engine_tokens}: must not be negative")
        if limit_tokens is None:
            return None
        return min(_integer("limit_tokens", limit_tokens, ", or None for no limit"), sequence.num_tokens)

    def loads(self, loads: Iterable[tuple[Lookup, Blocks]]) -> list[tuple[Lookup, Blocks]]:
        """Return what is to be launched. Raises for what is no pair of a lookup and blocks that it can be loaded into."""
        checked = []
        for load in loads:
            if not isinstance(load, tuple | list) or len(load) != 2:
                raise TypeError(f"{reprlib.repr(load)} is no load; give pairs of a lookup and the blocks to load into")
            lookup, target = load
            if not isinstance(lookup, Lookup):
                raise TypeError(f"a {type(lookup).__name__} is no lookup; make one of a sequence with Cache.lookup")
            self.target(target, lookup.num_blocks)
            checked.append((lookup, target))
        return checked

    def memory(self, blocks: Blocks) -> None:
        """Raise TypeError for something else than engine blocks, ValueError for blocks of another geometry."""
        if not hasattr(blocks, "memory"):
            raise TypeError(f"a {type(blocks).__name__} is no EngineBlocks; make them with EngineMemory.blocks")
        theirs = blocks.memory.geometry
        if theirs is not self._geometry and theirs != self._geometry:
            raise ValueError(f"the engine's memory is described for {theirs}; describe it with this cache's geometry")

    def target(self, target: Blocks, num_blocks: int) -> None:
        """Raise for blocks that so many cannot be loaded into."""
        self.memory(target)
        if target.num_blocks < num_blocks:
            raise ValueError(f"{num_blocks} blocks are to be loaded into {target.num_blocks}")
        if not target.memory.writable:
            raise ValueError("the target is read-only, or a broadcast array: give memory that can be loaded into")
        if not target.are_distinct:
            raise ValueError("the target names a block twice; each block is loaded into a place of its own")

    def source(self, source: Blocks, first_block: int) -> None:
        """Raise for blocks that cannot be stored as those from `first_block` on."""
        if not 0 <= _integer("first_block", first_block) <= _FIRST_BLOCK_MAX:
            raise ValueError(f"first_block = {first_block}: must not be negative, and at most {_FIRST_BLOCK_MAX}")
        self.memory(source)
        if not source.memory.holds_whole_blocks:
            raise ValueError("the source holds only some of the heads: a block is stored whole or not at all")

    def timeout(self, timeout_s: float | None) -> float:
        """Return the deadline to use, as a plain float whatever kind of number was given: clocks of threads take no other.
        Raises TypeError for what is no number, ValueError unless it is positive and at most a day."""
        if timeout_s is None:
            return self._timeout_s
        seconds = as_seconds("timeout_s", timeout_s)
        if not 0 < seconds <= _TIMEOUT_S_MAX:
            raise ValueError(f"timeout_s = {timeout_s}: must be more than 0 and at most {_TIMEOUT_S_MAX:.0f}")
        return seconds


def _integer(name: str, value: object, or_else: str = "") -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"{name} = {reprlib.repr(value)}: must be an integer{or_else}") from error


@contextmanager
def looked_up(look_up: Callable[..., Lookup], what: Lookup | Sequence, limit_tokens: int | None) -> Iterator[Lookup]:
    """A lookup as it was given, or one of a sequence, whose pins are given back if the body raises."""
    if isinstance(what, Lookup):
        if limit_tokens is not None:
            raise ValueError(f"limit_tokens = {limit_tokens}: give it to `lookup`, this one has been made")
        yield what
        return
    lookup = look_up(what, limit_tokens=limit_tokens)
    try:
        yield lookup
    except BaseException:
        lookup.release()
        raise
