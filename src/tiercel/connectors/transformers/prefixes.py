"""The engine's own cache: which buffer holds the KV of which tokens.

Stands for an engine's GPU prefix cache: a bounded number of buffers, least recently used out first, reused by longest
common prefix. Only settled tokens count, whose chunk of the grid is complete and computed as such.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiercel import Ticket
from tiercel.connectors.transformers.buffers import SequenceBuffer


@dataclass
class Resident:
    """One buffer and what it holds.

    Attributes:
        settled: tokens whose KV is final, a multiple of the chunk: int32[num_settled].
        tickets: running moves that touch the buffer; it must not change before they let go of it.
    """

    buffer: SequenceBuffer
    settled: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    tickets: list[Ticket] = field(default_factory=list)
    last_use: int = 0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a request will run.

    Attributes:
        home: the resident whose buffer the request takes over.
        donor: the resident that shares the longest prefix; may be `home` itself.
        num_tokens: length of that prefix, a multiple of the chunk; 0: nothing to reuse.
    """

    home: Resident
    donor: Resident
    num_tokens: int


class PrefixPool:
    """A bounded number of residents, least recently used out first. One thread at a time."""

    def __init__(self, make_buffer: Callable[[], SequenceBuffer], *, num_buffers: int, chunk_tokens: int) -> None:
        self._residents = [Resident(make_buffer()) for _ in range(num_buffers)]
        self._chunk_tokens = chunk_tokens
        self._uses = 0

    @property
    def capacity_tokens(self) -> int:
        """Tokens that all buffers together can hold."""
        return sum(resident.buffer.num_tokens for resident in self._residents)

    @property
    def num_settled_tokens(self) -> int:
        """Tokens held now, over all buffers."""
        return sum(resident.settled.size for resident in self._residents)

    def place(self, prompt: NDArray[np.int32], limit_tokens: int) -> Placement:
        """Choose the buffer for a prompt and the reuse it offers, at most limit_tokens. Changes only the order of use.

        A prompt that continues all that a buffer holds takes that buffer over. Otherwise the least recently used one
        gives way, and a shared beginning is copied into it.
        """
        donor, num_tokens = self._longest_match(prompt, limit_tokens)
        continues = 0 < donor.settled.size == num_tokens
        home = donor if continues else min(self._residents, key=lambda resident: resident.last_use)
        self._uses += 1
        donor.last_use = home.last_use = self._uses
        return Placement(home=home, donor=donor, num_tokens=num_tokens)

    def _longest_match(self, prompt: NDArray[np.int32], limit_tokens: int) -> tuple[Resident, int]:
        def matched(resident: Resident) -> int:
            length = min(resident.settled.size, limit_tokens)
            differs = resident.settled[:length] != prompt[:length]
            common = int(differs.argmax()) if differs.any() else length
            return common // self._chunk_tokens * self._chunk_tokens

        lengths = [matched(resident) for resident in self._residents]
        best = max(range(len(lengths)), key=lambda i: (lengths[i], self._residents[i].last_use))
        return self._residents[best], lengths[best]
