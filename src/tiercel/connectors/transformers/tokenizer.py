"""Text to tokens without a download: one token a byte, and a few marks above them.

For models with random weights and for demonstrations. A model folder that brings a tokenizer of its own is read by
`load_model`; both answer to `Tokenizer`.
"""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

MARKS: Final = ("<|pad|>", "<|system|>", "<|document|>", "<|user|>", "<|assistant|>", "<|end|>")
"""Marks that open the parts of a prompt; mark i is token 256 + i."""


class Tokenizer(Protocol):
    """Text to tokens."""

    def encode(self, mark: str, text: str) -> NDArray[np.int32]:
        """Tokens of one part of a prompt, the mark that opens it first: int32[num_tokens]."""
        ...


class ByteTokenizer:
    """One token a byte of UTF-8: tokens 0 to 255 are bytes, those above are `MARKS`."""

    vocab_size: Final = 256 + len(MARKS)

    def encode(self, mark: str, text: str) -> NDArray[np.int32]:
        """Return the mark and the text's bytes: int32[1 + num_bytes].

        Raises:
            ValueError: the mark is none of `MARKS`.
        """
        if mark not in MARKS:
            raise ValueError(f"mark {mark!r} is none of {', '.join(MARKS)}")
        body = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int32)
        return np.concatenate([np.array([256 + MARKS.index(mark)], dtype=np.int32), body])
