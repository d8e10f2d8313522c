"""What is to be done in one engine step.

A `StepPlan` stays in the process that has the cache, and its orders carry the cache's own objects. Workers in processes of their
own get a `RankPlan`: numbers and names.
"""

from dataclasses import dataclass

from tiercel import Lookup, Sequence

_LOG_ID_CHARS_MAX = 200


def log_id(request_id: str) -> str:
    """Return what a request is logged, recorded and traced under. Clients may choose theirs: what is too long for a line is
    cut, what is no text is replaced."""
    return request_id[:_LOG_ID_CHARS_MAX].encode(errors="replace").decode()


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadOrder:
    """Bring what a lookup pinned into the engine's blocks.

    Attributes:
        lookup: None if nothing is left to load: then every block is reported as failed.
        block_ids: the engine's blocks that vLLM counts on, at least as many as the lookup's.
    """

    request_id: str
    lookup: Lookup | None
    block_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreOrder:
    """Keep blocks of a request. block_ids: the engine's, from the sequence's `first_block` on."""

    request_id: str
    sequence: Sequence
    first_block: int
    block_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class StepPlan:
    """One step's orders; vLLM carries it as its `KVConnectorMetadata`.

    Attributes:
        fences: requests whose blocks vLLM has taken back: nothing may read them once this step runs.
        loads: launched at once.
        settled_stores: stores of blocks that earlier steps computed.
        stores: stores of blocks that are complete when this step's forward pass has run.
    """

    fences: tuple[str, ...] = ()
    loads: tuple[LoadOrder, ...] = ()
    settled_stores: tuple[StoreOrder, ...] = ()
    stores: tuple[StoreOrder, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """What a worker in a process of its own is told about one step: to mark it, and what to tell vLLM at its end.

    Attributes:
        step: its number; counts up.
        meeting: how often the cache's memory became another one: workers that have joined for an earlier one join anew.
        marks_start: whether a copy waits for the step to begin; marks_end: for it to be enqueued.
        sent: finished requests whose blocks were read.
        received: requests whose loads have ended.
        failed_blocks: the engine's blocks that loads did not fill.
    """

    step: int
    meeting: int = 0
    marks_start: bool = False
    marks_end: bool = False
    sent: frozenset[str] = frozenset()
    received: frozenset[str] = frozenset()
    failed_blocks: frozenset[int] = frozenset()

    @property
    def start_mark(self) -> int:
        """What `RankAgent.mark_step` is told before the step's forward pass."""
        return 2 * self.step

    @property
    def end_mark(self) -> int:
        """What it is told behind the pass."""
        return 2 * self.step + 1
