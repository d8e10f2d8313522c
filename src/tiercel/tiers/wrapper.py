"""What wrappers of a tier have in common: every call goes to the tier inside, until a subclass adds its behaviour."""

from tiercel.tiers.base import BlockLabels, BlockMemory, Slots, Statuses, Tier, TierName, TierStats


class TierWrapper:
    """A tier that hands every call on to the one inside."""

    def __init__(self, inner: Tier) -> None:
        self._inner = inner

    @property
    def name(self) -> TierName:
        return self._inner.name

    @property
    def num_slots(self) -> int:
        return self._inner.num_slots

    @property
    def block_bytes(self) -> int:
        return self._inner.block_bytes

    def reserve(self, slots: Slots) -> None:
        self._inner.reserve(slots)

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        return self._inner.write(slots, source, labels)

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        return self._inner.read(slots, target)

    def free(self, slots: Slots) -> None:
        self._inner.free(slots)

    def stats(self) -> TierStats:
        return self._inner.stats()

    def close(self) -> None:
        self._inner.close()
