"""A child process forked from one that uses caches inherits their memory but not their threads: it may not use them."""

import os
from typing import Protocol

_REASON = (
    "this cache belongs to the process that this one was forked from, whose threads serve it; open a cache after the fork, "
    "or start processes with `spawn`"
)


class Refusing(Protocol):
    """What serves the calls of a cache."""

    def refuse(self, reason: str) -> None:
        """Refuse every call from now on. Takes no lock."""
        ...


_open: set[Refusing] = set()
"""Not a WeakSet: what a signal raises in the callback of a weak reference is lost."""


def refuse_in_forked_children(serving: Refusing) -> None:
    """Let every call be refused in processes that are forked from this one, until `serving` is forgotten."""
    _open.add(serving)


def forget(serving: Refusing) -> None:
    """The cache that it serves is closed. Idempotent."""
    _open.discard(serving)


def _after_fork() -> None:
    for serving in list(_open):
        serving.refuse(_REASON)
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
