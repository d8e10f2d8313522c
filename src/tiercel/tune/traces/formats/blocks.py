"""What readers of formats with named blocks have in common: checks of the names, and names for what a source leaves unnamed."""

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.errors import FormatError
from tiercel.tune.traces.format import TOKENS_PER_BLOCK_MAX
from tiercel.tune.traces.source import Source

Names = NDArray[np.uint64]
BlockIds = list[Annotated[int, msgspec.Meta(ge=0)]]

NO_NAMES = np.empty(0, np.uint64)
_FIRST_FRESH = 1 << 63
_NAME_MAX = (1 << 64) - 1


class BlockChecker:
    """Holds the names of each row against its number of tokens."""

    def __init__(self, source: Source, tokens_per_block: int, *, key: str) -> None:
        self._source = source
        self._size = tokens_per_block
        self._key = key
        self._num_short = 0

    def check(self, line: int | None, ids: list[int], input_tokens: int) -> None:
        """Check the names of a row's blocks.

        Raises:
            FormatError: they are more than the tokens fill, or one has more than 64 bits.
        """
        if len(ids) * self._size >= input_tokens + self._size:
            raise self._too_many(line, len(ids), input_tokens)
        if len(ids) < input_tokens // self._size:
            self._num_short += 1
        if ids and max(ids) > _NAME_MAX:
            reason = "must be an integer of 0 to 2^64 - 1; correct or remove the row"
            raise self._source.wrong(line, reason, key=self._key, value=max(ids))

    def notes(self) -> list[str]:
        """Say how many rows name fewer blocks than they fill."""
        if not self._num_short:
            return []
        return [
            f"{self._num_short} requests name fewer blocks of {self._size} tokens than their prompts fill; the rest was taken as "
            "their own"
        ]

    def _too_many(self, line: int | None, num_ids: int, input_tokens: int) -> FormatError:
        fitting = [size for power in range(17) if -(-input_tokens // (size := 1 << power)) == num_ids]
        fitting = [size for size in fitting if size <= TOKENS_PER_BLOCK_MAX]
        remedy = (
            f"if its blocks hold {fitting[-1]}, give --tokens-per-block {fitting[-1]}" if fitting else "correct the row"
        )
        reason = f"are more blocks of {self._size} tokens than a prompt of {input_tokens} tokens fills; {remedy}"
        return self._source.wrong(line, reason, key=f"number of {self._key}", value=num_ids)


class FreshBlocks:
    """Names that no other block of the file has."""

    def __init__(self) -> None:
        self._next = _FIRST_FRESH

    def take(self, count: int) -> Names:
        """Return that many names."""
        first, self._next = self._next, self._next + count
        return np.arange(count, dtype=np.uint64) + np.uint64(first)

    def continued(self, names: Names, prompt_tokens: int, longer_tokens: int, tokens_per_block: int) -> Names:
        """Return the names of a prompt that begins with an earlier one, whose answer and the new turn follow it.

        Args:
            names: of the earlier prompt's blocks, the partly filled last one included or not.
        """
        kept = names[: prompt_tokens // tokens_per_block]
        return np.concatenate([kept, self.take(-(-longer_tokens // tokens_per_block) - len(kept))])
