"""Relations between settings that are odd, but no mistake that a cache could not run with."""

from tiercel.config.cache import SETTINGS, CacheConfig
from tiercel.config.notes import Note, NoteKind
from tiercel.config.sizes import is_share, parse_size

_DISK_ONLY = ("ssd_admission", "ssd_write_budget_per_day", "ssd_eviction_policy")


def relation_notes(config: CacheConfig) -> list[Note]:
    """Return a note for each relation that is probably not meant."""
    notes: list[tuple[str, str]] = []
    if config.enable_cpu and config.enable_ssd and _is_less(config.num_ssd_blocks, config.num_cpu_blocks):
        notes.append(
            (
                "num_ssd_blocks",
                "smaller than num_cpu_blocks, so the disk tier cannot hold what leaves host memory; FlexKV would refuse "
                "to start",
            )
        )
    policies = {config.eviction_policy, config.ssd_eviction_policy}
    if config.hit_reward_seconds and "lru" not in policies:
        notes.append(("hit_reward_seconds", "no tier evicts by lru, so it has no effect"))
    if config.slru_protected_threshold != SETTINGS["slru_protected_threshold"].default and "slru" not in policies:
        notes.append(("slru_protected_threshold", "no tier evicts by slru, so it has no effect"))
    if not config.enable_ssd:
        notes += [
            (key, "enable_ssd is false, so it has no effect")
            for key in _DISK_ONLY
            if getattr(config, key) != SETTINGS[key].default
        ]
    return [Note(kind=NoteKind.UNLIKELY, key=key, text=text) for key, text in notes]


def _is_less(one: int | str, other: int | str) -> bool:
    """Whether a capacity is certainly less than another: both in blocks, or both in bytes."""
    if is_share(one) or is_share(other) or isinstance(one, str) is not isinstance(other, str):
        return False
    return _number(one) < _number(other)


def _number(capacity: int | str) -> int:
    return parse_size("capacity", capacity) if isinstance(capacity, str) else capacity
