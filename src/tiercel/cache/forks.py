"""A child process forked from one that uses caches inherits their memory but not their threads: it may not use them."""

import os

from tiercel.cache.dispatch import Dispatcher

_REASON = (
    "this cache belongs to the process that this one was forked from, whose threads serve it; open a cache after the fork, "
    "or start processes with `spawn`"
)

_open: set[Dispatcher] = set()
"""Not a WeakSet: what a signal raises in the callback of a weak reference is lost."""


def refuse_in_forked_children(dispatcher: Dispatcher) -> None:
    """Let the dispatcher refuse every call in processes that are forked from this one, until it is forgotten."""
    _open.add(dispatcher)


def forget(dispatcher: Dispatcher) -> None:
    """The dispatcher's cache is closed. Idempotent."""
    _open.discard(dispatcher)


def _after_fork() -> None:
    for dispatcher in list(_open):
        dispatcher.refuse(_REASON)
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
