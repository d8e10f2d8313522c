"""What a simulation has to know of an engine, measured on that engine before anything is replayed.

Prefill: cold prompts of several lengths, and prompts behind a cached prefix. Decode: the gaps of one stream. Copies between GPU
and host memory: stores and loads of these same prompts, by the connector's own counts of bytes and seconds.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from _vllm_arms import TIERCEL_COUNTERS
from _vllm_engine import Engine, Sample
from _vllm_scale import Scale

Point = tuple[int, int, float]
"""Cached tokens, computed tokens, seconds."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Prompts to measure with.

    Attributes:
        cold: Tokens of prompts that nobody has.
        behind: (cached tokens, computed tokens).
        loaded: Tokens of prompts that come back from host memory.
    """

    cold: tuple[int, ...]
    behind: tuple[tuple[int, int], ...]
    loaded: tuple[int, ...]
    decoded: tuple[int, int]
    repeats: int


FULL = Lengths(
    cold=(1016, 2040, 4088, 8184, 16376, 32760),
    behind=((4096, 1016), (8192, 4088), (16384, 1016), (16384, 8184), (24576, 4088)),
    loaded=(4088, 16376, 32760),
    decoded=(4088, 65),
    repeats=2,
)
SMOKE = Lengths(
    cold=(60, 120, 248, 504),
    behind=((256, 60), (256, 248)),
    loaded=(120, 248, 504),
    decoded=(120, 17),
    repeats=3,
)


@dataclass(frozen=True, kw_only=True)
class LinkFigures:
    """A direction between GPU and host memory."""

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured. `decode_token_s`: between two tokens of one stream."""

    points: tuple[Point, ...]
    decode_token_s: float
    load: LinkFigures
    store: LinkFigures
    samples: dict[str, Any]

    def data(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def calibration_of(data: dict[str, Any]) -> Calibration:
    """Read what `Calibration.data` wrote."""
    return Calibration(
        points=tuple((int(cached), int(computed), float(seconds)) for cached, computed, seconds in data["points"]),
        decode_token_s=data["decode_token_s"],
        load=LinkFigures(**data["load"]),
        store=LinkFigures(**data["store"]),
        samples=data["samples"],
    )


class Calibrating:
    """Measures one engine, which has nothing else to do."""

    def __init__(self, engine: Engine, scale: Scale, lengths: Lengths) -> None:
        self._engine = engine
        self._scale = scale
        self._lengths = lengths
        self._random = np.random.default_rng(1)
        self._unexpected: list[str] = []

    def run(self) -> Calibration:
        """Measure everything. Samples that did not come from where they should are left out, and named.

        Raises:
            RuntimeError: None is left.
        """
        self._warm_up()
        counters = self._engine.counters()
        points = [point for _ in range(self._lengths.repeats) for point in self._prefills()]
        store = _rate(self._engine.counters(), counters, "store")
        counters = self._engine.counters()
        hits = [hit for _ in range(self._lengths.repeats) for hit in self._loads()]
        load = _rate(self._engine.counters(), counters, "load")
        if not points or not hits:
            raise RuntimeError(f"prompts were cached otherwise than they should be: {'; '.join(self._unexpected)}")
        points += [(size, tokens - size, warm_s) for tokens, size, warm_s, _ in hits]
        beyond = [hit_s - warm_s - size * self._scale.shape.token_bytes / load for _, size, warm_s, hit_s in hits]
        gaps = self._decode()
        return Calibration(
            points=tuple(points),
            decode_token_s=statistics.median(gaps),
            load=LinkFigures(latency_s=max(0.0, statistics.median(beyond)), bytes_per_s=load),
            store=LinkFigures(latency_s=0.0, bytes_per_s=store),
            samples={
                "host hits, (tokens, loaded tokens, TTFT of a GPU hit, TTFT)": hits,
                "beyond GPU hit and bytes over the rate, s": beyond,
                "decode gaps, s, min and max": (min(gaps), max(gaps)),
                "left out": self._unexpected,
            },
        )

    def _warm_up(self) -> None:
        prompts = [self._prompt(tokens) for tokens in self._lengths.cold]
        for prompt in prompts:
            self._engine.one(prompt, 4)
            self._engine.one(prompt, 4)
        self._engine.settle()
        self._engine.evict_gpu()
        self._engine.one(prompts[-1], 4)
        self._engine.settle()

    def _prefills(self) -> list[Point]:
        points: list[Point] = []
        for tokens in self._lengths.cold:
            points += self._point(self._prompt(tokens), 0)
        for cached, computed in self._lengths.behind:
            prefix = self._prompt(cached)
            self._engine.one(prefix)
            self._engine.settle()
            points += self._point(prefix + self._prompt(computed), cached)
        return points

    def _point(self, prompt: Sequence[int], cached: int) -> list[Point]:
        """The timing of a prompt; none if another part of it than this was cached."""
        sample = self._engine.one(list(prompt))
        self._engine.settle()
        is_right = self._is_expected(sample, cached, 0)
        return [(cached, len(prompt) - cached, sample.ttft_s)] if is_right else []

    def _loads(self) -> list[tuple[int, int, float, float]]:
        """(tokens, those of them that are loaded, seconds of a GPU hit, seconds of a host hit) of each length."""
        found = []
        for tokens in self._lengths.loaded:
            prompt = self._prompt(tokens)
            size = (tokens - 1) // self._scale.block_tokens * self._scale.block_tokens
            self._engine.one(prompt)
            self._engine.settle()
            warm = self._engine.one(prompt)
            self._engine.settle()
            self._engine.evict_gpu()
            hit = self._engine.one(prompt)
            self._engine.settle()
            if self._is_expected(warm, size, 0) and self._is_expected(hit, 0, size):
                found.append((tokens, size, warm.ttft_s, hit.ttft_s))
        return found

    def _decode(self) -> list[float]:
        tokens, outputs = self._lengths.decoded
        sample = self._engine.one(self._prompt(tokens), outputs)
        self._engine.settle()
        return [end - start for start, end in sample.gaps]

    def _is_expected(self, sample: Sample, num_local: int, num_external: int) -> bool:
        found = sample.num_local, sample.num_external
        if found != (num_local, num_external):
            self._unexpected.append(f"{found[0]} + {found[1]} tokens, not {num_local} + {num_external}")
        return found == (num_local, num_external)

    def _prompt(self, num_tokens: int) -> list[int]:
        tokens: list[int] = self._random.integers(10, self._scale.shape.vocab_size - 10, num_tokens).tolist()
        return tokens


def _rate(after: dict[str, float], before: dict[str, float], direction: str) -> float:
    """Bytes a second of the copies between two readings of the counters."""
    moved, spent, waited = (after.get(name, 0.0) - before.get(name, 0.0) for name in TIERCEL_COUNTERS[direction])
    if moved <= 0 or spent - waited <= 0:
        raise RuntimeError(f"the connector counted {moved:.0f} bytes in {spent - waited:.3g} s of {direction}s")
    return moved / (spent - waited)
