"""What requests generate, as far as a trace tells: tokens that stand for a prompt and its answer.

A trace names the blocks of prompts only. Where a later prompt of the same conversation begins with this prompt, the answer is
what stands behind it there. Elsewhere nobody asks for the answer again, and its tokens are the request's own.
"""

import numpy as np
from numpy.typing import NDArray

from tiercel.hashing import Sequence
from tiercel.tune.traces import NO_REQUEST, NO_SESSION, Trace


class Outputs:
    """Continues prompts by their answers."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._next = _next_turns(trace)

    def extend(self, request: int, prompt: Sequence, num_generated: int) -> tuple[Sequence, int]:
        """Continue a prompt by what is generated.

        Args:
            prompt: of `Trace.tokens(request)`.

        Returns:
            The sequence of both, and how many leading tokens it shares with the prompt: a block of the trace that the prompt
            only begins stands under another name where it goes on.
        """
        trace = self._trace
        num_tokens = int(trace.input_tokens[request])
        stop = num_tokens + num_generated
        full = num_tokens // trace.tokens_per_block
        following = int(self._next[request])
        if following == NO_REQUEST or not self._goes_on(request, following, full):
            prompt.extend(self._own(request, num_generated))
            return prompt, num_tokens
        tokens = trace.tokens(following)[:stop]
        whole = np.concatenate([tokens, self._own(request, stop - len(tokens))])
        return Sequence(
            prompt.root, prompt.tokens_per_block, whole, origin=prompt.origin
        ), full * trace.tokens_per_block

    def _goes_on(self, request: int, following: int, full: int) -> bool:
        """Whether a request's `full` first blocks begin another one."""
        path, goes_on = self._trace.path(request), self._trace.path(following)
        return full <= min(len(path), len(goes_on)) and (full == 0 or bool(path[full - 1] == goes_on[full - 1]))

    def _own(self, request: int, count: int) -> NDArray[np.int32]:
        """Tokens that no other request has."""
        return np.full(count, self._trace.num_blocks + request, np.int32)


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
