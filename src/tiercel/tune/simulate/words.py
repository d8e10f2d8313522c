"""Numbers of a run as people read them: for the terminal and for the report, so that both say the same."""

from tiercel.tune.simulate.summary import Summary, Times, named_times


def share(value: float) -> str:
    """A share in percent."""
    return f"{value:.1%}"


def quantity(value: float) -> str:
    """A number with three digits that matter, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    for limit, unit, scale in ((1e-3, "us", 1e6), (1.0, "ms", 1e3), (120.0, "s", 1.0), (7200.0, "min", 1 / 60)):
        if value < limit:
            return f"{value * scale:.3g} {unit}" if value else "0"
    return f"{value / 3600:.3g} h" if value < 172_800 else f"{value / 86_400:.3g} d"


def hit_rows(summary: Summary) -> list[tuple[str, ...]]:
    """Of each weighting: its name, all hits, and those by where they came from."""
    hits = summary.hits
    none = [""] * len(hits.blocks_by_tier)
    return [
        ("block-weighted", share(hits.block_weighted), *map(share, hits.blocks_by_tier.values())),
        ("token-weighted", share(hits.token_weighted), *map(share, hits.tokens_by_tier.values())),
        ("per request", share(hits.per_request), *none),
        ("stored at arrival, block-weighted", share(hits.stored), *none),
    ]


def time_row(times: Times) -> tuple[str, ...]:
    """All statistics of a time."""
    return tuple(seconds(getattr(times, name)) for name in Times.__struct_fields__)


def tier_rows(summary: Summary) -> list[tuple[str, ...]]:
    """Of each tier: name, read, written, evicted, busy, waited."""
    return [
        (
            tier,
            f"{quantity(traffic.bytes_read / 1e9)} GB",
            f"{quantity(traffic.bytes_written / 1e9)} GB",
            f"{traffic.evicted_blocks:,}",
            share(traffic.busy_share),
            seconds(traffic.wait_s),
        )
        for tier, traffic in summary.tiers.items()
    ]


def time_rows(summary: Summary) -> list[tuple[str, ...]]:
    """Of each time that is known: name and all statistics."""
    return [(name, *time_row(times)) for name, times in named_times(summary)]


def wear_text(summary: Summary) -> str | None:
    """What the run does to the disk, None without one."""
    wear = summary.wear
    if wear is None:
        return None
    told = f"disk wear at this pace: {quantity(wear.bytes_per_day / 1e12)} TB a day"
    if wear.endurance_bytes is None:
        return f"{told}; give --endurance to see how long a drive lasts"
    limit = f"{quantity(wear.endurance_bytes / 1e12)} TB"
    return f"{told}; {limit} of endurance last " + (
        "for ever" if wear.years is None else f"{quantity(wear.years)} years"
    )
