"""Bounds on how long a cache waits for its ranks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTimeouts:
    """How long a group waits for its ranks.

    Attributes:
        copy_s: for the answers to one copy of at most 2048 blocks, waiting for the engine's step included. The deadline of the
            ticket that it belongs to ends the wait too.
        cancel_s: for the answer to a cancelled copy; then the rank counts as silent until it answers.
        close_s: for all ranks to leave.
    """

    copy_s: float = 30.0
    cancel_s: float = 0.25
    close_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("copy_s", "cancel_s", "close_s"):
            if not 0 < getattr(self, name) <= 3600:
                raise ValueError(f"{name} = {getattr(self, name)}: must be more than 0 and at most 3600")
