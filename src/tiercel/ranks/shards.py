"""Which ranks hold which heads, and so who copies: topology as data.

| ranks | head ranges, of 4 heads | a store reads from |
|---|---|---|
| tensor parallel | 0-2, 2-4 | both |
| more ranks than heads, heads held twice | 0-2, 0-2, 2-4, 2-4 | the first and the third |
| MLA: each holds the one latent | 0-1, 0-1 (of 1) | the first |

A load writes to all of them.
"""

from collections.abc import Sequence

from tiercel.errors import ConfigError

HeadRange = tuple[int, int]
"""[start, stop) of a block's heads."""


def ranks_to_gather_from(head_ranges: Sequence[HeadRange], num_heads: int) -> tuple[int, ...]:
    """Return the ranks that together hold each head once.

    Raises:
        ConfigError: a head is held by nobody, or two ranks hold parts of each other's.
    """
    first_holders: dict[HeadRange, int] = {}
    for rank, heads in enumerate(head_ranges):
        first_holders.setdefault(heads, rank)
    at = 0
    for start, stop in sorted(first_holders):
        if start != at:
            what = "nobody holds" if start > at else "several ranks hold different parts around"
            raise ConfigError(f"{what} head {min(at, start)}: the ranks hold {list(head_ranges)} of {num_heads} heads")
        at = stop
    if at != num_heads:
        raise ConfigError(f"nobody holds head {at}: the ranks hold {list(head_ranges)} of {num_heads} heads")
    return tuple(sorted(first_holders.values()))
