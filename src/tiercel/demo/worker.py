"""The process that holds engine and cache: `python -m tiercel.demo.worker IN OUT`, two inherited file descriptors.

It is a process of its own so that it can be killed. It ends when told to, or when the other side closes the pipe.
"""

import hashlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tiercel import Cache, CacheConfig, ModelConfig, TiercelError
from tiercel.connectors.transformers import (
    ChunkDone,
    EmbeddedEngine,
    EngineOptions,
    LoadedModel,
    SequenceBuffer,
    Tokenizer,
    load_model,
)
from tiercel.demo.messages import (
    Answer,
    Ask,
    BlockDigest,
    Chunk,
    Ended,
    Failed,
    FromWorker,
    Opening,
    Part,
    Ready,
    SpanRecord,
    Start,
    Stop,
    TierUse,
    WorkerGoneError,
    receive,
    send,
    to_worker,
)

TOKENS_PER_BLOCK = 16


def main(arguments: list[str]) -> int:
    """Serve requests until told to stop. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which ends this process
    with os.fdopen(int(arguments[0]), "rb") as inbox, os.fdopen(int(arguments[1]), "wb") as outbox:
        try:
            start = receive(inbox, to_worker)
            assert isinstance(start, Start)
            _serve(start, inbox, lambda message: send(outbox, message))
        except WorkerGoneError:
            return 1  # nobody is left to tell
        except (TiercelError, OSError, ValueError, RuntimeError) as error:
            send(outbox, Failed(f"{type(error).__name__}: {error}"))
            return 1
    return 0


def _serve(start: Start, inbox: BinaryIO, tell: Callable[[FromWorker], None]) -> None:
    tell(Opening("loading the model", 0, 1))
    loaded = load_model(Path(start.model), device=start.device, seed=start.seed)
    cache = _open_cache(start, tell) if start.host_tokens else None
    try:
        options = EngineOptions(num_buffers=start.num_buffers, buffer_tokens=start.buffer_tokens)
        engine = EmbeddedEngine(loaded, options, cache)
        tell(Opening("warming up", 0, 1))
        engine.warm_up()
        session = _Session(loaded, engine, cache, tell)
        tell(session.ready())
        while not isinstance(message := receive(inbox, to_worker), Stop):
            assert isinstance(message, Ask)
            tell(session.answer(message))
        tiers = session.tiers()
    finally:
        if cache is not None:
            cache.close()
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tell(Ended(tiers=tiers, peak_bytes=peak_bytes))


def _open_cache(start: Start, tell: Callable[[FromWorker], None]) -> Cache:
    model = ModelConfig.from_model(start.model, model_id=f"{Path(start.model).name}, seed {start.seed}")
    config = CacheConfig(
        enable_cpu=True,
        enable_ssd=True,
        num_cpu_blocks=start.host_tokens // TOKENS_PER_BLOCK,
        num_ssd_blocks=start.disk_tokens // TOKENS_PER_BLOCK,
        ssd_cache_dir=start.cache_dir,
        tokens_per_block=TOKENS_PER_BLOCK,
    )
    return Cache.open(model, config, progress=lambda stage, done, total: tell(Opening(stage, done, total)))


class _Session:
    """Answers requests with one engine, and describes what it did."""

    def __init__(
        self, loaded: LoadedModel, engine: EmbeddedEngine, cache: Cache | None, tell: Callable[[FromWorker], None]
    ) -> None:
        self._loaded, self._engine, self._cache, self._tell = loaded, engine, cache, tell
        self._began = time.perf_counter()

    def ready(self) -> Ready:
        disk = [use for use in self.tiers() if use.tier == "disk"]
        return Ready(
            model=self._loaded.description,
            block_bytes=self._cache.geometry.block_bytes if self._cache else 0,
            tokens_per_block=TOKENS_PER_BLOCK,
            found_blocks=disk[0].used_blocks if disk else 0,
        )

    def answer(self, ask: Ask) -> Answer:
        prompt = _tokenize(self._loaded.tokenizer, ask.parts)

        def on_chunk(done: ChunkDone) -> None:
            self._tell(
                Chunk(
                    request=ask.request,
                    num_tokens=done.num_tokens,
                    num_total=done.num_total,
                    num_stores_running=done.num_stores_running,
                )
            )

        at_s = time.perf_counter() - self._began
        generation, resident = self._engine.generate(prompt, max_new_tokens=ask.max_new_tokens, on_chunk=on_chunk)
        restored = sum(count for source, count in generation.reused_tokens.items() if source != "engine")
        return Answer(
            request=ask.request,
            at_s=at_s,
            num_prompt_tokens=prompt.size,
            tokens=generation.tokens,
            reused_tokens=dict(generation.reused_tokens),
            ttft_s=generation.ttft_s,
            total_s=generation.total_s,
            spans=tuple(SpanRecord(s.kind, s.start_s, s.stop_s, s.num_tokens, s.detail) for s in generation.spans),
            failures=self._engine.failures,
            tiers=self.tiers(),
            blocks=digest_blocks(resident.buffer, resident.settled),
            num_restored=restored // TOKENS_PER_BLOCK,
        )

    def tiers(self) -> tuple[TierUse, ...]:
        """Occupancy and traffic of the engine's own cache and of each tier."""
        engine = TierUse(
            tier="engine",
            num_blocks=self._engine.pool.capacity_tokens // TOKENS_PER_BLOCK,
            used_blocks=self._engine.pool.num_settled_tokens // TOKENS_PER_BLOCK,
        )
        if self._cache is None:
            return (engine,)
        tiers = (
            TierUse(
                tier=tier.name,
                num_blocks=tier.num_slots,
                used_blocks=tier.num_ready,
                bytes_read=tier.bytes_read,
                read_s=tier.read_seconds,
                bytes_written=tier.bytes_written,
                write_s=tier.write_seconds,
            )
            for tier in self._cache.stats().tiers
        )
        return (engine, *tiers)


def _tokenize(tokenizer: Tokenizer, parts: tuple[Part, ...]) -> NDArray[np.int32]:
    pieces = [
        np.asarray(part.tokens, dtype=np.int32) if part.tokens else tokenizer.encode(part.mark, part.text)
        for part in parts
    ]
    return np.concatenate(pieces)


def digest_blocks(buffer: SequenceBuffer, tokens: NDArray[np.int32]) -> tuple[BlockDigest, ...]:
    """Name and digest each block that lies in a buffer, without any of Tiercel's own hashing or layout.

    Args:
        tokens: the buffer's settled tokens: int32[num_tokens], whole blocks.
    """
    chain = hashlib.sha256()
    digests = []
    for start in range(0, tokens.size, TOKENS_PER_BLOCK):
        stop = start + TOKENS_PER_BLOCK
        chain.update(tokens[start:stop].tobytes())
        content = hashlib.sha256(buffer.block_bytes(start, stop)).digest()
        digests.append(BlockDigest(chain.copy().digest(), content))
    return tuple(digests)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
