"""A small serving engine around a `transformers` model, with Tiercel behind its own prefix cache.

Serves one request at a time: finds the longest prefix that its own buffers or Tiercel hold, loads it, prefills the rest
chunk by chunk, decodes greedily, and offers every settled chunk to Tiercel while it goes on. For demonstrations and
tests; a server's engine connects in its own package of `connectors`.

The life of a request:

    place (own prefixes) -> lookup -> load or copy -> prefill chunk, store, prefill chunk, store ... -> first token
      -> decode ... at each chunk boundary: settle the chunk, store -> done
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel import Cache
from tiercel.connectors.transformers.buffers import SequenceBuffer
from tiercel.connectors.transformers.model import LoadedModel
from tiercel.connectors.transformers.offload import Offload, RequestOffload
from tiercel.connectors.transformers.prefixes import PrefixPool, Resident
from tiercel.connectors.transformers.records import Generation, Timeline
from tiercel.connectors.transformers.runner import ModelRunner


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Sizes of an embedded engine.

    Attributes:
        num_buffers: sequences whose KV the engine itself can hold.
        buffer_tokens: capacity of each, rounded up to whole chunks.
        chunk_tokens: prefill chunk and grid of reuse; a multiple of the cache's tokens_per_block.
        timeout_s: bound of every wait for Tiercel.
    """

    num_buffers: int = 4
    buffer_tokens: int = 18 * 1024
    chunk_tokens: int = 256
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("num_buffers", "buffer_tokens", "chunk_tokens", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class ChunkDone:
    """Told after each chunk of a prefill: tokens done and to do, and stores of this request still running."""

    num_tokens: int
    num_total: int
    num_stores_running: int


class EmbeddedEngine:
    """Greedy decoding of one request at a time. Not thread-safe. Does not own the cache."""

    def __init__(self, loaded: LoadedModel, options: EngineOptions, cache: Cache | None = None) -> None:
        """Allocate the buffers.

        Args:
            cache: where KV goes beyond the engine's buffers; None: nowhere.

        Raises:
            ValueError: the chunk is no multiple of the cache's block.
        """
        size = options.chunk_tokens
        if cache is not None and size % cache.geometry.tokens_per_block:
            raise ValueError(
                f"chunk_tokens is {size}; it must be a multiple of the cache's {cache.geometry.tokens_per_block} "
                "tokens a block"
            )
        self._chunk_tokens = size
        self._capacity_tokens = -(-options.buffer_tokens // size) * size
        self._loaded = loaded
        self._pool = PrefixPool(self._make_buffer, num_buffers=options.num_buffers, chunk_tokens=size)
        self._runner = ModelRunner(loaded, chunk_tokens=size, capacity_tokens=self._capacity_tokens)
        self._offload = Offload(cache, timeout_s=options.timeout_s)

    @property
    def pool(self) -> PrefixPool:
        """The engine's own prefix cache."""
        return self._pool

    @property
    def failures(self) -> dict[str, int]:
        """What failed in Tiercel and became recompute so far: "load: IO_ERROR" and the like, and how often."""
        return dict(self._offload.failures)

    def _make_buffer(self) -> SequenceBuffer:
        return SequenceBuffer(self._loaded.buffer_shape(self._capacity_tokens), self._loaded.device)

    def warm_up(self) -> None:
        """Run a chunk and a token through the model, so that the first request does not pay for first-time work."""
        tokens = np.arange(2 * self._chunk_tokens, dtype=np.int32) % 256
        scratch = self._make_buffer()
        self._runner.prefill_chunk(scratch, tokens, 0)
        self._runner.prefill_chunk(scratch, tokens, self._chunk_tokens)
        self._runner.decode(scratch, 0, tokens.size)

    def generate(
        self,
        prompt: NDArray[np.int32],
        *,
        max_new_tokens: int,
        on_chunk: Callable[[ChunkDone], None] | None = None,
    ) -> tuple[Generation, Resident]:
        """Answer one prompt.

        Args:
            prompt: int32[num_tokens], not empty.
            max_new_tokens: tokens to generate; at least 1.
            on_chunk: called after each prefilled chunk, inside the time to first token: keep it short.

        Returns:
            The answer, and the resident that holds its KV until the next call.

        Raises:
            ValueError: prompt and answer do not fit a buffer.
        """
        if not prompt.size or max_new_tokens < 1 or prompt.size + max_new_tokens > self._capacity_tokens:
            raise ValueError(
                f"{prompt.size} prompt tokens and {max_new_tokens} new ones: need at least 1 of each, and together at "
                f"most {self._capacity_tokens}"
            )
        timeline = Timeline()
        request = self._offload.request(prompt, timeline)
        try:
            home, reused = self._reuse(request, prompt, timeline)
            num_reused = sum(reused.values())
            token = self._prefill(request, home, prompt, num_reused, timeline, on_chunk)
            ttft_s = timeline.now()
            tokens = self._decode(request, home, prompt, token, max_new_tokens, timeline)
            total_s = timeline.now()
        finally:
            request.close()
        generation = Generation(
            tokens=tuple(tokens),
            reused_tokens=reused,
            computed_tokens=prompt.size - num_reused,
            ttft_s=ttft_s,
            total_s=total_s,
            spans=tuple(timeline.spans),
        )
        return generation, home

    def _reuse(
        self, request: RequestOffload, prompt: NDArray[np.int32], timeline: Timeline
    ) -> tuple[Resident, Mapping[str, int]]:
        """Choose a buffer and fill it with the longest prefix at hand, the engine's own or Tiercel's."""
        size = self._chunk_tokens
        limit = (prompt.size - 1) // size * size  # the last token's chunk is computed: it gives the first answer
        placement = self._pool.place(prompt, limit)
        home, donor, num_own = placement.home, placement.donor, placement.num_tokens
        num_stored = request.find(limit) // size * size
        if num_stored > num_own:
            self._offload.quiesce(home)
            loaded = request.load(home, size)
            home.settled = prompt[: sum(loaded.values())]
            return home, loaded
        if home is not donor:
            self._offload.quiesce(home)
            with timeline.measure("copy", num_own):
                home.buffer.copy_from(donor.buffer, num_own)
        elif home.settled.size > num_own:
            self._offload.quiesce(home)  # stores may still read what this prompt will overwrite
        home.settled = prompt[:num_own]
        return home, {"engine": num_own} if num_own else {}

    def _prefill(
        self,
        request: RequestOffload,
        home: Resident,
        prompt: NDArray[np.int32],
        num_reused: int,
        timeline: Timeline,
        on_chunk: Callable[[ChunkDone], None] | None,
    ) -> int:
        """Compute the rest of the prompt and offer each complete chunk. Returns the first generated token."""
        token = -1
        for start in range(num_reused, prompt.size, self._chunk_tokens):
            stop = min(start + self._chunk_tokens, prompt.size)
            began = timeline.now()
            with timeline.measure("prefill", stop - start):
                token = self._runner.prefill_chunk(home.buffer, prompt, start)
            seconds = timeline.now() - began
            self._offload.observe_prefill(cached_tokens=start, computed_tokens=stop - start, seconds=seconds)
            self._settle(request, home, prompt[:stop])
            if on_chunk is not None:
                on_chunk(
                    ChunkDone(num_tokens=stop, num_total=prompt.size, num_stores_running=request.num_stores_running())
                )
        return token

    def _decode(
        self,
        request: RequestOffload,
        home: Resident,
        prompt: NDArray[np.int32],
        token: int,
        max_new_tokens: int,
        timeline: Timeline,
    ) -> list[int]:
        """Generate greedily. A chunk that decoding completes is computed again as a chunk, and then offered."""
        tokens = [token]
        sequence = np.concatenate([prompt, np.empty(max_new_tokens, dtype=np.int32)])
        with timeline.measure("decode", max_new_tokens - 1):
            for position in range(prompt.size, prompt.size + max_new_tokens - 1):
                sequence[position] = tokens[-1]
                request.extend(sequence[position : position + 1])
                tokens.append(self._runner.decode(home.buffer, tokens[-1], position))
                if (position + 1) % self._chunk_tokens == 0:
                    with timeline.measure("settle", self._chunk_tokens):
                        self._runner.prefill_chunk(home.buffer, sequence, position + 1 - self._chunk_tokens)
                    self._settle(request, home, sequence[: position + 1])
        return tokens

    def _settle(self, request: RequestOffload, home: Resident, tokens: NDArray[np.int32]) -> None:
        """Count complete chunks up to these tokens as final, and offer the new ones for storing."""
        settled = tokens.size // self._chunk_tokens * self._chunk_tokens
        start = home.settled.size
        home.settled = tokens[:settled]
        if settled > start:
            request.store(home, start, settled)
