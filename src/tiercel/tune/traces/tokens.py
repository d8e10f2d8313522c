"""From what a prompt is made of to names of blocks: tokenizers, and the hash of each block of tokens.

Names are the first 64 bits of the core's own keys under a root that is drawn anew for each reading, and a trace holds only the
numbers that blocks got from them: neither text nor tokens nor anything that could be tried against a guess.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ConfigError
from tiercel.hashing import KEY_BYTES
from tiercel.hashing import Sequence as TokenSequence

Tokenizer = Callable[[str], Sequence[int] | NDArray[np.int32]]
"""Text -> tokens from 0 to 2^31 - 1; the beginning of a text should have the beginning of its tokens."""


def bytes_tokenizer(text: str) -> NDArray[np.int32]:
    """Return a token for each byte of the text's UTF-8: some four where a model's tokenizer has one."""
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int32)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json`, which needs the package `tokenizers`.

    Args:
        path: the file, or the model's folder that holds it.

    Raises:
        ConfigError: the package is missing, or the file is none that it reads.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            "a tokenizer.json is read by the package tokenizers: pip install 'tiercel[traces]', or leave the tokenizer out to "
            "count bytes"
        ) from error
    file = Path(path)
    file = file / "tokenizer.json" if file.is_dir() else file
    data = file.read_text(encoding="utf-8")
    try:
        model: Any = tokenizers.Tokenizer.from_str(data)
    except Exception as error:
        raise ConfigError(f"{file} is no tokenizer.json of the package tokenizers: {error}") from error
    return lambda text: model.encode(text, add_special_tokens=False).ids


class BlockNamer:
    """Names the blocks of token sequences, of one reading."""

    def __init__(self, tokens_per_block: int) -> None:
        self._tokens_per_block = tokens_per_block
        self._root = os.urandom(KEY_BYTES)

    def names(self, tokens: Sequence[int] | NDArray[np.int32]) -> NDArray[np.uint64]:
        """Return a name for each full block: uint64[len(tokens) // tokens_per_block]. Equal names mean equal beginnings.

        Raises:
            ValueError: a token is out of range.
        """
        held = tokens if isinstance(tokens, np.ndarray) else list(tokens)
        keys = TokenSequence(self._root, self._tokens_per_block, held).keys()
        return np.ascontiguousarray(keys[:, :8]).view(np.uint64).reshape(-1)
