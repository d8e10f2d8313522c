"""Keys are a format: golden values, the layout rebuilt with hashlib, and what the calls refuse."""

import hashlib
import struct
import threading

import numpy as np
import pytest

from tiercel import _native
from tiercel.hashing import FINGERPRINT_BYTES, KEY_BYTES, Sequence, fingerprint, root_key

PARTS: dict[str, str | int] = {
    "model": "meta-llama/Llama-3.1-8B",
    "weights_epoch": 3,
    "dtype": "bfloat16",
    "tokens_per_block": 16,
}
ROOT = bytes(range(16))

# Computed with hashlib and struct alone, from the layout in tiercel.hashing.
GOLDEN_FINGERPRINT = "767af4679712045acfd8a30220de38b99ca51b92f937ca9e90d4ed75c0d2a2cf"
GOLDEN_ROOT = "d49b8a8cb51e8c8f1aff7b3ef6181f3f"
GOLDEN_KEYS = [
    "562c43dc1f9b451705a45661684223a3",
    "01c68d7255791751de69140b7a10666e",
    "5a6a05cd7bed9d965d077d90fc83df5f",
]
GOLDEN_KEY_WITH_EXTRAS = "833876f91cac17b0d442bfb817fa2aa0"


def frame(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def reference_key(parent: bytes, tokens: list[int], extras: bytes = b"") -> bytes:
    packed = struct.pack(f"<{len(tokens)}i", *tokens)
    return hashlib.sha256(packed + parent + extras + struct.pack("<II", len(extras), len(tokens))).digest()[:16]


def test_golden_values_hold_on_every_machine() -> None:
    assert fingerprint(PARTS).hex() == GOLDEN_FINGERPRINT
    root = root_key(fingerprint(PARTS), "tenant-a")
    assert root.hex() == GOLDEN_ROOT
    sequence = Sequence(root, 16, np.arange(48, dtype=np.int64))
    assert [key.tobytes().hex() for key in sequence.keys(0)] == GOLDEN_KEYS
    with_extras = Sequence(root, 16)
    with_extras.extend(np.arange(16, dtype=np.int32), {0: b"image:0123"})
    assert with_extras.keys().tobytes().hex() == GOLDEN_KEY_WITH_EXTRAS


def test_fingerprint_and_root_follow_the_documented_layout() -> None:
    message = frame(b"tiercel fingerprint 1")
    message += frame(b"dtype") + frame(b"sbfloat16") + frame(b"model") + frame(b"smeta-llama/Llama-3.1-8B")
    message += frame(b"tokens_per_block") + frame(b"i16") + frame(b"weights_epoch") + frame(b"i3")
    expected = hashlib.sha256(message).digest()
    assert fingerprint(PARTS) == expected
    root_message = frame(b"tiercel root 1") + frame(expected) + frame("mandant ü".encode()) + bytes(4)
    assert root_key(expected, "mandant ü") == hashlib.sha256(root_message).digest()[:KEY_BYTES]


def test_fingerprint_does_not_depend_on_the_order_of_its_parts() -> None:
    assert fingerprint(dict(reversed(PARTS.items()))) == fingerprint(PARTS)


def test_fingerprints_of_unlike_parts_differ() -> None:
    unlike: list[dict[str, str | int]] = [
        {"a": 1},
        {"a": "1"},
        {"a": "i1"},
        {"a1": ""},
        {"a": "1", "b": ""},
        {"a": "", "b": "1"},
        {"a": -1},
    ]
    assert len({fingerprint(parts) for parts in unlike}) == len(unlike)


def test_roots_of_unlike_namespaces_differ() -> None:
    roots = {root_key(bytes(FINGERPRINT_BYTES), name) for name in ("", "a", "a\0", "aa")}
    assert len(roots) == 4


@pytest.mark.parametrize("value", [True, 1.5, None, b"x"])
def test_fingerprint_refuses_values_without_a_canonical_form(value: object) -> None:
    with pytest.raises(TypeError, match="'dtype'"):
        fingerprint({"dtype": value})  # type: ignore[dict-item]


def test_fingerprint_and_root_refuse_what_names_nothing() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        fingerprint({})
    with pytest.raises(TypeError, match="named by a int"):
        fingerprint({1: "x"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="32 bytes, not 5"):
        root_key(b"short", "")


@pytest.mark.parametrize("portable", [False, True])
def test_sha256_agrees_with_hashlib_at_every_length_around_block_ends(portable: bool) -> None:
    data = np.random.default_rng(1).bytes(300)
    for length in [*range(200), 300]:
        assert _native.sha256(data[:length], portable) == hashlib.sha256(data[:length]).digest()


@pytest.mark.parametrize("tokens_per_block", [1, 16, 32])
def test_portable_and_fast_chains_agree(tokens_per_block: int) -> None:
    tokens = np.random.default_rng(2).integers(0, 2**31, 1000, np.int32)
    fast = _native.sha256_chain(ROOT, tokens, tokens_per_block)
    portable = _native.sha256_chain(ROOT, tokens, tokens_per_block, portable=True)
    np.testing.assert_array_equal(fast, portable)
    np.testing.assert_array_equal(fast, Sequence(ROOT, tokens_per_block, tokens).keys())


def test_a_partly_filled_block_has_no_key() -> None:
    sequence = Sequence(ROOT, 16, np.zeros(31, np.int32))
    assert (sequence.num_tokens, sequence.num_blocks, sequence.num_hashed_blocks) == (31, 1, 0)
    assert sequence.keys().shape == (1, 16)
    assert sequence.num_hashed_blocks == 1
    sequence.extend(np.zeros(1, np.int32))
    assert sequence.keys().shape == (2, 16)


def test_keys_hash_no_further_than_asked() -> None:
    sequence = Sequence(ROOT, 16, np.zeros(16 * 1000, np.int32))
    sequence.keys(0, 3)
    assert sequence.num_hashed_blocks == 3
    sequence.parent_key(10)
    assert sequence.num_hashed_blocks == 10


def test_parent_keys_are_the_root_and_the_keys_before() -> None:
    sequence = Sequence(ROOT, 16, np.arange(64, dtype=np.int32))
    keys = [key.tobytes() for key in sequence.keys(0)]
    assert [sequence.parent_key(block) for block in range(5)] == [ROOT, *keys]
    assert (sequence.root, sequence.tokens_per_block) == (ROOT, 16)


def test_tokens_are_copied_so_later_changes_do_not_reach_the_keys() -> None:
    tokens = np.arange(16, dtype=np.int32)
    sequence = Sequence(ROOT, 16, tokens)
    tokens[:] = 7
    assert sequence.keys()[0].tobytes() == reference_key(ROOT, list(range(16)))


@pytest.mark.parametrize("bad", [-1, 2**31, -(2**31), 2**40, -(2**62)])
def test_a_token_out_of_range_leaves_the_sequence_unchanged(bad: int) -> None:
    sequence = Sequence(ROOT, 16, np.arange(16, dtype=np.int64))
    tokens = np.arange(40, dtype=np.int64)
    tokens[33] = bad
    with pytest.raises(ValueError, match="tokens must lie in"):
        sequence.extend(tokens, {1: b"x"})
    assert sequence.num_tokens == 16
    sequence.extend(tokens[:16], {1: b"x"})
    assert sequence.num_blocks == 2
    with pytest.raises(ValueError, match="tokens must lie in"):
        Sequence(ROOT, 16, tokens)


def test_extras_are_refused_for_blocks_that_have_tokens_and_when_given_twice() -> None:
    sequence = Sequence(ROOT, 16, np.arange(17, dtype=np.int32))
    for block in (0, 1):
        with pytest.raises(ValueError, match="too late"):
            sequence.extend(np.arange(3, dtype=np.int32), {block: b"x"})
    sequence.extend(np.arange(3, dtype=np.int32), {5: b"x"})
    with pytest.raises(ValueError, match="given before"):
        sequence.extend(np.arange(3, dtype=np.int32), {5: b"x"})
    assert sequence.num_tokens == 20


@pytest.mark.parametrize("extras", [{-1: b"x"}, {"1": b"x"}, {1: "x"}])
def test_extras_of_other_types_are_a_type_error(extras: dict[int, bytes]) -> None:
    with pytest.raises(TypeError, match="extras must map"):
        Sequence(ROOT, 16).extend(np.zeros(1, np.int32), extras)


@pytest.mark.parametrize("tokens_per_block", [0, 3, 24, 1 << 17])
def test_tokens_per_block_must_be_a_power_of_two_in_range(tokens_per_block: int) -> None:
    with pytest.raises(ValueError, match="tokens_per_block"):
        Sequence(ROOT, tokens_per_block)


def test_a_list_of_ints_is_the_same_as_an_array_of_them() -> None:
    tokens = [*np.random.default_rng(4).integers(0, 2**31, 5000).tolist(), 0, 2**31 - 1]
    grown = Sequence(ROOT, 16, tokens[:1000])
    grown.extend(tokens[1000:1003], {70: b"image"})
    grown.extend([])
    expected = Sequence(ROOT, 16, np.array(tokens[:1000], np.int32))
    expected.extend(np.array(tokens[1000:], np.int32), {70: b"image"})
    grown.extend(tokens[1003:])
    assert grown.num_tokens == expected.num_tokens == len(tokens)
    np.testing.assert_array_equal(grown.keys(), expected.keys())


def test_arrays_of_other_kinds_are_a_type_error() -> None:
    for tokens in (
        np.zeros(16, np.float32),
        np.zeros(16, np.uint32),
        np.zeros((4, 4), np.int32),
        np.zeros(32, np.int32)[::2],
    ):
        with pytest.raises(TypeError):
            Sequence(ROOT, 16, tokens)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            Sequence(ROOT, 16).extend(tokens)  # type: ignore[arg-type]


def test_ranges_outside_the_sequence_are_a_value_error() -> None:
    sequence = Sequence(ROOT, 16, np.zeros(64, np.int32))
    for start, stop in ((0, 5), (3, 2), (5, None)):
        with pytest.raises(ValueError, match="do not lie in"):
            sequence.keys(start, stop)
    with pytest.raises(ValueError, match="do not lie in"):
        sequence.parent_key(5)
    with pytest.raises(ValueError, match="16 bytes, not 3"):
        Sequence(b"abc", 16)


def test_threads_may_extend_and_hash_at_the_same_time() -> None:
    tokens = np.random.default_rng(3).integers(0, 50000, 16 * 4000, np.int64)
    expected = Sequence(ROOT, 16, tokens).keys()
    sequence = Sequence(ROOT, 16)
    seen: list[bool] = []

    def read() -> None:
        num_blocks = 0
        while num_blocks < len(expected):
            num_blocks = sequence.num_blocks
            seen.append(bool(np.array_equal(sequence.keys(0, num_blocks), expected[:num_blocks])))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, len(tokens), 1000):
        sequence.extend(tokens[start : start + 1000])
    for reader in readers:
        reader.join(timeout=60)
    assert not any(reader.is_alive() for reader in readers)
    assert all(seen)
