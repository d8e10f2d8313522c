"""What requests generate, as far as a trace tells: tokens that stand for a prompt and its answer.

A trace names the blocks of prompts only. Where a later prompt of the same conversation begins with this prompt, the answer is
what stands behind it there. Elsewhere nobody asks for the answer again, and its tokens are the request's own.
"""

import numpy as np
from numpy.typing import NDArray

from tiercel.tune.traces import NO_REQUEST, NO_SESSION, Trace


class Outputs:
    """Continues prompts by their answers."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._next = _next_turns(trace)

    def tokens(self, request: int, num_generated: int) -> tuple[NDArray[np.int32], int]:
        """Tokens of a prompt and its answer.

        Returns:
            int32[input_tokens + num_generated], and how many of them are those that `Trace.tokens` gives for the prompt: a
            block that the prompt only begins may stand under another name where it goes on.
        """
        trace = self._trace
        num_tokens = int(trace.input_tokens[request])
        following = int(self._next[request])
        if following != NO_REQUEST:
            full = num_tokens // trace.tokens_per_block
            path, goes_on = trace.path(request), trace.path(following)
            if full <= len(goes_on) and full <= len(path) and (full == 0 or path[full - 1] == goes_on[full - 1]):
                tokens = trace.tokens(following)[: num_tokens + num_generated]
                return self._lengthened(tokens, request, num_tokens + num_generated), full * trace.tokens_per_block
        return self._lengthened(trace.tokens(request), request, num_tokens + num_generated), num_tokens

    def _lengthened(self, tokens: NDArray[np.int32], request: int, length: int) -> NDArray[np.int32]:
        own = np.full(length - len(tokens), self._trace.num_blocks + request, np.int32)
        return np.concatenate([tokens, own])


def _next_turns(trace: Trace) -> NDArray[np.int32]:
    """Of each request, the one that waits for it first, or else the next one of its conversation."""
    turns = np.full(trace.num_requests, NO_REQUEST, np.int32)
    held = np.flatnonzero(trace.sessions != NO_SESSION)
    order = held[np.argsort(trace.sessions[held], kind="stable")]
    same = trace.sessions[order[:-1]] == trace.sessions[order[1:]]
    turns[order[:-1][same]] = order[1:][same]
    waiting = np.flatnonzero(trace.after != NO_REQUEST)[::-1]
    turns[trace.after[waiting]] = waiting
    return turns
