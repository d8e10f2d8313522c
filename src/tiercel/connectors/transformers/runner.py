"""Run the model over a buffer so that the same tokens always give the same bits.

KV is computed on an absolute grid: chunk k is tokens [k * chunk, (k + 1) * chunk), always that many rows, padded
behind the last token. Every matrix product of a chunk then has a shape that depends on k alone, causal masking keeps a
row from seeing what follows it, and so the KV of a token is a function of the tokens up to it and of nothing else: not
of where reuse began, how long the prompt was, or who computed it. `docs/demo.md` has the argument in full.
"""

# torch and transformers are an extra; types are checked with and without them.
# pyright: reportMissingImports=false

import numpy as np
import torch
from numpy.typing import NDArray

from tiercel.connectors.transformers.buffers import SequenceBuffer
from tiercel.connectors.transformers.model import LoadedModel

_PADDING_TOKEN = 0


class ModelRunner:
    """Prefill by chunks and decode by tokens, greedy. One thread at a time."""

    def __init__(self, loaded: LoadedModel, *, chunk_tokens: int, capacity_tokens: int) -> None:
        """chunk_tokens divides capacity_tokens, the length of the buffers that will be run over."""
        assert capacity_tokens % chunk_tokens == 0
        self._model = loaded.model
        self._chunk_tokens = chunk_tokens
        # Row i of a chunk sees all before the chunk and the rows up to i: at any chunk, the right end of this mask.
        mask = torch.zeros(chunk_tokens, capacity_tokens, dtype=loaded.model.dtype)
        mask[:, capacity_tokens - chunk_tokens :] = torch.full((chunk_tokens, chunk_tokens), -torch.inf).triu_(1)
        self._mask = mask.to(loaded.device)

    def prefill_chunk(self, buffer: SequenceBuffer, tokens: NDArray[np.int32], start: int) -> int:
        """Compute the KV of the grid chunk that begins at token `start` and return the token that follows.

        Args:
            tokens: the whole sequence so far; those behind the chunk are not looked at. int32[num_tokens].
            start: a multiple of the chunk, less than num_tokens. KV of all tokens before it is in the buffer.

        Returns:
            The greedy choice behind the chunk's last real token.
        """
        assert start % self._chunk_tokens == 0
        stop = start + self._chunk_tokens
        real = tokens[start:stop]
        rows = np.full(self._chunk_tokens, _PADDING_TOKEN, dtype=np.int64)
        rows[: real.size] = real
        mask = self._mask[None, None, :, self._mask.shape[1] - stop :]
        return self._forward(buffer, rows, start, mask=mask, last_row=real.size - 1)

    def decode(self, buffer: SequenceBuffer, token: int, position: int) -> int:
        """Compute the KV of one token at `position`, which sees all before it, and return the token that follows."""
        return self._forward(buffer, np.array([token], dtype=np.int64), position, mask=None, last_row=0)

    def _forward(
        self, buffer: SequenceBuffer, rows: NDArray[np.int64], start: int, *, mask: torch.Tensor | None, last_row: int
    ) -> int:
        device = self._mask.device
        buffer.seek(start)
        logits = self._model(
            input_ids=torch.from_numpy(rows)[None].to(device),
            position_ids=torch.arange(start, start + rows.size, device=device)[None],
            past_key_values=buffer.model_cache,
            attention_mask=mask,
            use_cache=True,
            logits_to_keep=torch.tensor([last_row], device=device),
        ).logits
        return int(logits[0, -1].argmax())
