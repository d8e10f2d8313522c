"""What holds for every sequence: splits, dtypes and extras against a reference in hashlib."""

import hashlib
import struct

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tiercel.hashing import Sequence, fingerprint, root_key

ROOT = bytes(range(100, 116))
TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=300)
BLOCKS = st.sampled_from([1, 2, 4, 16, 32, 128])
EXTRAS = st.dictionaries(st.integers(0, 20), st.binary(max_size=80), max_size=4)
PARTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers(), min_size=1, max_size=5)


def reference_keys(tokens: list[int], tokens_per_block: int, extras: dict[int, bytes]) -> list[bytes]:
    keys = [ROOT]
    for block in range(len(tokens) // tokens_per_block):
        part = tokens[block * tokens_per_block : (block + 1) * tokens_per_block]
        extra = extras.get(block, b"")
        message = struct.pack(f"<{len(part)}i", *part) + keys[-1] + extra
        message += struct.pack("<II", len(extra), tokens_per_block)
        keys.append(hashlib.sha256(message).digest()[:16])
    return keys[1:]


def keys_of(sequence: Sequence) -> list[bytes]:
    keys = sequence.keys()
    return [key.tobytes() for key in keys]


@settings(deadline=None)
@given(tokens=TOKENS, tokens_per_block=BLOCKS, extras=EXTRAS)
def test_keys_equal_the_reference(tokens: list[int], tokens_per_block: int, extras: dict[int, bytes]) -> None:
    sequence = Sequence(ROOT, tokens_per_block)
    sequence.extend(np.array(tokens, np.int64), extras)
    assert keys_of(sequence) == reference_keys(tokens, tokens_per_block, extras)


@settings(deadline=None)
@given(data=st.data(), tokens=TOKENS, tokens_per_block=BLOCKS, extras=EXTRAS)
def test_any_split_and_any_order_of_hashing_gives_the_same_keys(
    data: st.DataObject, tokens: list[int], tokens_per_block: int, extras: dict[int, bytes]
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=8)))
    sequence = Sequence(ROOT, tokens_per_block)
    left = dict(extras)
    for start, stop in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        early = data.draw(st.booleans())  # extras may come long before their block's first token
        now = {
            block: left.pop(block) for block in extras if block in left and (early or block * tokens_per_block < stop)
        }
        if data.draw(st.booleans()):
            sequence.extend(np.array(tokens[start:stop], np.int32), now)
        else:
            sequence.extend(np.array(tokens[start:stop], np.int64), now)
        sequence.keys(0, data.draw(st.integers(0, sequence.num_blocks)))
    assert keys_of(sequence) == reference_keys(tokens, tokens_per_block, extras)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(1, 3000), min_size=1, max_size=12))
def test_long_sequences_keep_their_keys_while_they_grow(seed: int, steps: list[int]) -> None:
    tokens = np.random.default_rng(seed).integers(0, 2**31, sum(steps), np.int32)
    expected = reference_keys(tokens.tolist(), 16, {})
    sequence = Sequence(ROOT, 16)
    start = 0
    for step in steps:
        sequence.extend(tokens[start : start + step])
        start += step
        assert keys_of(sequence) == expected[: start // 16]


@settings(deadline=None)
@given(
    tokens=st.lists(st.integers(0, 2**31 - 1), min_size=16, max_size=16),
    first=st.binary(max_size=40),
    second=st.binary(max_size=40),
)
def test_unlike_extras_give_unlike_keys(tokens: list[int], first: bytes, second: bytes) -> None:
    assume(first != second)
    keys = []
    for extra in (first, second):
        sequence = Sequence(ROOT, 16)
        sequence.extend(np.array(tokens, np.int32), {0: extra})
        keys += keys_of(sequence)
    assert keys[0] != keys[1]


@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 2**31 - 1), min_size=32, max_size=32))
def test_extras_cannot_stand_in_for_tokens_nor_for_another_block_size(tokens: list[int]) -> None:
    packed = struct.pack("<32i", *tokens)
    halves = Sequence(ROOT, 16)
    halves.extend(np.array(tokens[:16], np.int32), {0: packed[64:]})
    whole = Sequence(ROOT, 32, np.array(tokens, np.int32))
    plain = Sequence(ROOT, 16, np.array(tokens, np.int32))
    keys = keys_of(halves) + keys_of(whole) + keys_of(plain)
    assert len(set(keys)) == 4


@settings(deadline=None)
@given(first=PARTS, second=PARTS)
def test_fingerprints_are_equal_only_for_equal_parts(first: dict[str, str | int], second: dict[str, str | int]) -> None:
    assert (fingerprint(first) == fingerprint(second)) == (first == second)


@settings(deadline=None)
@given(first=st.text(max_size=20), second=st.text(max_size=20))
def test_roots_are_equal_only_for_equal_namespaces(first: str, second: str) -> None:
    assert (root_key(bytes(32), first) == root_key(bytes(32), second)) == (first == second)
