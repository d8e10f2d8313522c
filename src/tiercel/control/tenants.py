"""Whose a sequence is, and what its owner has of the tiers. Used by `control` only; the index keeps the shares."""

from collections.abc import Mapping

from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Index, TenantShare
from tiercel.tiers.base import TierName


class Tenants:
    """The tenants of one cache, by number; number 0 is everybody who was not named."""

    def __init__(self, index: Index, numbers: Mapping[TierName, int]) -> None:
        """numbers: of the tiers in the index."""
        self._index = index
        self._numbers = numbers
        self._by_root: dict[bytes, int] = {}

    def assign(self, root: bytes, tenant: int) -> None:
        """Take what begins with the root for this tenant's from now on; see `Index.assign`. Quick only before blocks of it are
        there. Raises ValueError for a tenant that the settings do not have."""
        self._index.assign(root, tenant)
        self._by_root[root] = tenant

    def of(self, sequence: TokenSequence) -> int:
        """Whose a sequence is."""
        return self._by_root.get(sequence.root, 0) if self._by_root else 0

    def shares(self, tier: TierName) -> tuple[TenantShare, ...]:
        """What each tenant has of a tier, number 0 first."""
        return self._index.shares(self._numbers[tier])
