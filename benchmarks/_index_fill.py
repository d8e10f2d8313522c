"""The index that the index benchmarks measure: a million blocks of multi-turn conversations.

5,187 conversations of 4,096 tokens behind 64 shared system prompts of 1,024 tokens, stored turn by turn; 16 tokens a
block. The shape is the one that other caches' indexes were measured with.
"""

import numpy as np
from numpy.typing import NDArray

from tiercel._native import Sequence
from tiercel.index import Index

TOKENS_PER_BLOCK = 16
NUM_BLOCKS = 1_000_000
NUM_CONVERSATIONS = 5_187
NUM_PROMPTS = 64
PROMPT_TOKENS = 1024
CONVERSATION_TOKENS = 4096
ROOT = bytes(16)

Tokens = NDArray[np.int32]


def random_tokens(rng: np.random.Generator, num_tokens: int) -> Tokens:
    return rng.integers(0, 150_000, num_tokens, dtype=np.int32)


def sequence_of(tokens: Tokens | None = None) -> Sequence:
    return Sequence(ROOT, TOKENS_PER_BLOCK, tokens)


def store(index: Index, sequence: Sequence) -> None:
    index.commit(index.reserve(sequence, 0, owner=1))


def store_by_turns(index: Index, tokens: Tokens, turn_tokens: int) -> None:
    """Store a conversation as it grows, `turn_tokens` at a time."""
    sequence = sequence_of()
    for start in range(0, len(tokens), turn_tokens):
        sequence.extend(tokens[start : start + turn_tokens])
        store(index, sequence)


def fill(index: Index, rng: np.random.Generator, turn_tokens: int = 1024) -> list[Tokens]:
    """Store the conversations; returns their tokens."""
    prompts = [random_tokens(rng, PROMPT_TOKENS) for _ in range(NUM_PROMPTS)]
    conversations = []
    for number in range(NUM_CONVERSATIONS):
        own = random_tokens(rng, CONVERSATION_TOKENS - PROMPT_TOKENS)
        conversations.append(np.concatenate([prompts[number % NUM_PROMPTS], own]))
    for tokens in conversations:
        store_by_turns(index, tokens, turn_tokens)
    return conversations
