"""From tokens to keys: what names a block, byte for byte.

Keys must be the same in every process, after every restart and on every machine, so this layout is a format: changing
it needs a new `_FORMAT`. All integers are little endian.

    fingerprint = SHA-256(frame("tiercel fingerprint 1") frame(name) frame(value) ... in order of name's UTF-8)
        value     = b"s" + UTF-8 of a str, or b"i" + ASCII decimal of an int
        frame(x)  = uint64 len(x) || x

    root = key[0] = SHA-256(frame("tiercel root 1") frame(fingerprint) frame(namespace's UTF-8) uint32 0)[:16]

    with a secret:  SHA-256(frame("tiercel secret root 1") frame(fingerprint) frame(namespace) frame(secret) uint32 0)[:16]

    key[i + 1] = SHA-256(tokens of block i as int32 || key[i] || extras of block i || uint32 len(extras)
                         || uint32 tokens_per_block)[:16]

Each message can be read back in one way only: the framed ones from their beginning, a block's from its end, and the
last uint32 tells a root (0) from a block (at least 1). A block's tokens stand before its parent's key because what
precedes that key can be hashed before it is known (native/core/hashing/chain.hpp). SHA-256 because two tenants' prompts
must never meet, chosen or not; 128 bits of it keep chosen collisions at 2^64 work.

The chain itself is native (`Sequence`); this module makes the roots. The index, the cache and the connectors call it.
"""

import hashlib
import reprlib
from collections.abc import Mapping

import numpy as np

from tiercel._native import KEY_BYTES, Sequence

__all__ = ["FINGERPRINT_BYTES", "KEY_BYTES", "Sequence", "fingerprint", "named_block", "root_key"]

FINGERPRINT_BYTES = 32

_FORMAT = "1"

_NO_TOKEN = np.zeros(1, np.int32)


def fingerprint(parts: Mapping[str, str | int]) -> bytes:
    """Name everything that must be equal for two blocks to be exchangeable.

    Args:
        parts: name -> value, such as the model, its weights' epoch, dtype, block geometry (tokens_per_block included)
            and format version. The order does not matter; 1 and "1" differ.

    Returns:
        32 bytes.

    Raises:
        TypeError: a name is not a str, or a value neither str nor int (bool is refused, as True == 1).
        ValueError: `parts` is empty.
    """
    if not parts:
        raise ValueError("a fingerprint needs at least one part")
    for name in parts:
        if not isinstance(name, str):
            raise TypeError(f"the fingerprint's part {name!r} is named by a {type(name).__name__}, not a str")
    message = bytearray(_frame(f"tiercel fingerprint {_FORMAT}".encode()))
    for name_bytes, name in sorted((name.encode(), name) for name in parts):
        message += _frame(name_bytes) + _frame(_tagged(name, parts[name]))
    return hashlib.sha256(message).digest()


def root_key(fingerprint: bytes, namespace: str, secret: bytes = b"") -> bytes:
    """Make key[0] of the sequences of one fingerprint and namespace.

    Args:
        fingerprint: 32 bytes, as `fingerprint` returns them.
        namespace: tenant, LoRA or cache salt; "" for the common one.
        secret: what one must know to name the namespace's blocks; b"" if anybody may.

    Returns:
        KEY_BYTES bytes.

    Raises:
        TypeError: the namespace is not a str.
        ValueError: the fingerprint has another length, or UTF-8 has no bytes for the namespace.
    """
    if not isinstance(namespace, str):
        raise TypeError(f'namespace = {namespace!r}: must be a str; "" is the common one')
    try:
        named = namespace.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"namespace = {reprlib.repr(namespace)}: must be text that UTF-8 has") from error
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes, not {len(fingerprint)}")
    kind = "secret root" if secret else "root"
    message = _frame(f"tiercel {kind} {_FORMAT}".encode()) + _frame(fingerprint) + _frame(named)
    message += (_frame(secret) if secret else b"") + bytes(4)
    return hashlib.sha256(message).digest()[:KEY_BYTES]


def named_block(root: bytes, name: bytes, origin: int = 0) -> Sequence:
    """Make the sequence of one block that its owner names: one token, 0, and the name as that block's extras.

    Args:
        root: 16 bytes, as `root_key` returns them.
        name: what the owner knows the block by, at least a byte.
        origin: as of `Sequence`.

    Returns:
        A sequence of one block of one token, whose key resists collisions as every key does.

    Raises:
        ValueError: the name is empty, or the root has another length.
    """
    if not name:
        raise ValueError("a block's name is empty; give at least one byte")
    block = Sequence(root, 1, origin=origin)
    block.extend(_NO_TOKEN, {0: name})
    return block


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def _tagged(name: str, value: str | int) -> bytes:
    if isinstance(value, str):
        return b"s" + value.encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return b"i" + str(value).encode()
    raise TypeError(f"the fingerprint's part {name!r} is a {type(value).__name__}, not a str or an int")
