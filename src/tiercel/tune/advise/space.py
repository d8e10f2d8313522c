"""The configurations that are searched: what each setting may be, and which combinations there are.

Capacities are powers of two below the budget, and the budget itself. So a larger budget offers nearly all that a smaller one
does, and its best is never worse by more than a tie.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from tiercel.tune.advise.asking import Budget
from tiercel.tune.advise.candidate import DIMENSIONS, Candidate

TOKENS_PER_BLOCK = (16, 32, 64, 128)
EVICTION_POLICIES = ("lru", "2q", "slru", "lfu", "arc", "cost")
"""Those that were best on some trace. fifo, mru and filo are for special cases, which the operator knows of."""
ADMISSIONS = ("through", "on_second_hit", "on_evict")

FLEXKV_EVICTION_POLICIES = ("lru", "slru", "lfu", "fifo")

_CAPACITIES_MAX = 7
"""Capacities of a tier, the budget included."""
WRITES_SAVED_S = 3600.0
"""Seconds whose write budget can be saved up: a 24th of a day."""
_WRITE_SHARES = (0.5, 0.25)
"""Write budgets, as shares of the writes of all different blocks of the trace."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """What each setting may be; the fields are those of `Candidate`, capacities in ascending order.

    Attributes:
        of_flexkv: whether only what FlexKV can be told counts: a host tier, a larger disk or none, one eviction policy for
            both, all that is stored written to disk.
        token_bytes: of the model: a tier without room for one block is no candidate's.
    """

    host_bytes: Sequence[int]
    disk_bytes: Sequence[int] = (0,)
    tokens_per_block: Sequence[int] = (16,)
    eviction_policy: Sequence[str] = ("lru",)
    ssd_eviction_policy: Sequence[str] = ("lru",)
    ssd_admission: Sequence[str] = ("through",)
    ssd_write_budget_per_day: Sequence[int | None] = (None,)
    evict_ratio: Sequence[float] = (0.0,)
    of_flexkv: bool = False
    token_bytes: int = 0

    def __contains__(self, candidate: Candidate) -> bool:
        if not candidate.is_possible or not candidate.has_room(self.token_bytes):
            return False
        if not self.of_flexkv:
            return True
        fits = candidate.host_bytes > 0 and (not candidate.disk_bytes or candidate.disk_bytes > candidate.host_bytes)
        plain = candidate.ssd_admission == "through" and candidate.ssd_write_budget_per_day is None
        return fits and plain

    def settled(self, candidate: Candidate) -> Candidate:
        """Return the one name of all candidates that do the same."""
        if self.of_flexkv:
            candidate = candidate.changed(ssd_eviction_policy=candidate.eviction_policy)
        return candidate.settled()

    def candidates(self) -> list[Candidate]:
        """Return every different candidate, in order."""
        every = (dict(zip(DIMENSIONS, values, strict=True)) for values in product(*map(self.choices, DIMENSIONS)))
        return [candidate for candidate in dict.fromkeys(map(self._named, every)) if candidate in self]

    def _named(self, values: dict[str, Any]) -> Candidate:
        return self.settled(Candidate(**values))

    @property
    def size(self) -> int:
        """Number of different candidates."""
        host_only = len(self.eviction_policy)
        for_disk = len(self.ssd_eviction_policy) * len(self.ssd_write_budget_per_day)
        disk_only = for_disk * sum(admission != "on_evict" for admission in self.ssd_admission)
        both = host_only * for_disk * len(self.ssd_admission)
        if self.of_flexkv:
            disk_only, both = 0, host_only
        count = 0
        for host, disk, tokens in product(self.host_bytes, self.disk_bytes, self.tokens_per_block):
            if not Candidate(host_bytes=host, disk_bytes=disk, tokens_per_block=tokens).has_room(self.token_bytes):
                continue
            if host and disk:
                count += both if not self.of_flexkv or disk > host else 0
            else:
                count += host_only if host else disk_only if disk else 0
        return count * len(self.evict_ratio)

    def plain(self) -> list[Candidate]:
        """Return the candidates that differ in capacities and block size alone: what the LRU curve can tell apart."""
        first: dict[str, Any] = {name: self.choices(name)[:1] for name in DIMENSIONS[3:]}
        return replace(self, **first).candidates()

    def choices(self, dimension: str) -> Sequence[object]:
        """Return what a setting may be."""
        choices: Sequence[object] = getattr(self, dimension)
        return choices

    def alternatives(self, candidate: Candidate, dimension: str) -> list[Candidate]:
        """Return the candidates that differ in one setting alone; of capacities the next ones below and above, and none."""
        choices: Sequence[object] = self.choices(dimension)
        current = getattr(candidate, dimension)
        if dimension in ("host_bytes", "disk_bytes") and current in choices:
            at = choices.index(current)
            choices = [choices[place] for place in sorted({at + 1, at - 1, 0}) if 0 <= place < len(choices)]
        found = (self.settled(candidate.changed(**{dimension: choice})) for choice in choices)
        return list(dict.fromkeys(other for other in found if other != candidate and other in self))


def space_of(
    budget: Budget, *, distinct_bytes: float, span_s: float, of_flexkv: bool = False, token_bytes: int = 0
) -> Space:
    """Return what is searched within a budget.

    Args:
        distinct_bytes: what writing every different block of the trace once comes to.
        span_s: of the trace. In one that is shorter than what a write budget saves up, no budget is ever spent: none is tried.
        of_flexkv: leave out what FlexKV cannot be told.
        token_bytes: of the model; tiers without room for one block are left out.
    """
    policies = FLEXKV_EVICTION_POLICIES if of_flexkv else EVICTION_POLICIES
    writes: list[int | None] = [None]
    if budget.disk_writes_per_day is not None:
        writes = [budget.disk_writes_per_day]
    elif budget.disk_bytes and span_s > WRITES_SAVED_S:
        a_day = distinct_bytes / span_s * 86_400
        writes += [size for share in _WRITE_SHARES if (size := _round(a_day * share)) >= 2**20]
    return Space(
        host_bytes=capacities(budget.host_bytes, none=budget.disk_bytes > 0, whole_gib=of_flexkv),
        disk_bytes=capacities(budget.disk_bytes, none=budget.host_bytes > 0, whole_gib=of_flexkv),
        tokens_per_block=TOKENS_PER_BLOCK,
        eviction_policy=policies,
        ssd_eviction_policy=policies[:1] if of_flexkv else policies,
        ssd_admission=ADMISSIONS[:1] if of_flexkv else ADMISSIONS,
        ssd_write_budget_per_day=writes[:1] if of_flexkv else writes,
        of_flexkv=of_flexkv,
        token_bytes=token_bytes,
    )


def capacities(budget_bytes: int, *, none: bool, whole_gib: bool = False) -> tuple[int, ...]:
    """Return the capacities of a tier, ascending: 0 if it may be left out, powers of two, and the budget.

    Args:
        whole_gib: round the budget down to GiB, or to MiB below one.
    """
    if whole_gib:
        unit = 2**30 if budget_bytes >= 2**30 else 2**20
        budget_bytes = budget_bytes // unit * unit
    sizes = [0] if none or not budget_bytes else []
    return (*sizes, *sorted(_halves(budget_bytes))) if budget_bytes else tuple(sizes)


def _halves(budget_bytes: int) -> Iterator[int]:
    yield budget_bytes
    size = 1 << (budget_bytes.bit_length() - 1)
    if size == budget_bytes:
        size >>= 1
    for _ in range(_CAPACITIES_MAX - 1):
        if size >= 2**20:
            yield size
            size >>= 1


def _round(num_bytes: float) -> int:
    """Round to two figures in MiB, so that a file does not claim more precision than there is."""
    mib = max(1, int(num_bytes / 2**20))
    scale: int = 10 ** max(0, len(str(mib)) - 2)
    return round(mib / scale) * scale * 2**20
