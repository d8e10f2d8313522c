"""Numbers as sentences have them."""

from tiercel.config import format_bytes
from tiercel.tune.advise.candidate import Candidate

_NAMES = {
    "host_bytes": "host memory",
    "disk_bytes": "disk",
    "tokens_per_block": "tokens a block",
    "eviction_policy": "in host memory",
    "ssd_eviction_policy": "on disk",
    "ssd_admission": "to disk",
    "ssd_write_budget_per_day": "written a day at most",
    "evict_ratio": "evicted at once",
}


def seconds(value: float) -> str:
    """Return a duration with three figures: "1.23 s", "45.6 ms"."""
    if abs(value) >= 1 or value == 0:
        return f"{value:.3g} s" if abs(value) < 1000 else f"{value:.0f} s"
    return f"{value * 1e3:.3g} ms" if abs(value) >= 1e-3 else f"{value * 1e6:.3g} us"


def percent(share: float) -> str:
    """Return a share: "31.2 %"."""
    return f"{share * 100:.1f} %"


def signed_percent(share: float) -> str:
    """Return a difference that is a share: "+4.2 %"; what rounds to nothing is "+0.0 %", whatever its sign."""
    told = f"{share * 100:+.1f} %"
    return "+0.0 %" if told == "-0.0 %" else told


def change(new: float, old: float) -> str:
    """Return a difference in percent: "+4.2 %"."""
    return signed_percent(new / old - 1) if old else "+0.0 %" if new == old else "from nothing"


def size(num_bytes: int | None) -> str:
    """Return a size for people; "no limit" for None, "none" for 0."""
    if num_bytes is None:
        return "no limit"
    return format_bytes(num_bytes).replace(".00 ", " ") if num_bytes else "none"


def setting(dimension: str, value: object) -> str:
    """Return one setting's value: "256 GiB of host memory"."""
    if dimension in ("host_bytes", "disk_bytes"):
        return f"{size(value)} of {_NAMES[dimension]}" if value else f"no {_NAMES[dimension]}"  # type: ignore[arg-type]
    if dimension == "ssd_write_budget_per_day":
        return f"{size(value)} {_NAMES[dimension]}" if value else "no limit of writes"  # type: ignore[arg-type]
    if dimension == "evict_ratio":
        return f"{percent(float(value))} {_NAMES[dimension]}"  # type: ignore[arg-type]
    return f"{value} {_NAMES[dimension]}"


def candidate_text(candidate: Candidate) -> str:
    """Return a candidate in a few words."""
    parts = [f"host {size(candidate.host_bytes)}", f"disk {size(candidate.disk_bytes)}"]
    parts.append(f"{candidate.tokens_per_block} tokens a block")
    if candidate.host_bytes:
        parts.append(candidate.eviction_policy)
    if candidate.disk_bytes:
        parts += [f"{candidate.ssd_eviction_policy} on disk", candidate.ssd_admission]
        if candidate.ssd_write_budget_per_day is not None:
            parts.append(f"{size(candidate.ssd_write_budget_per_day)} written a day")
    if candidate.evict_ratio:
        parts.append(f"evict_ratio {candidate.evict_ratio:g}")
    return ", ".join(parts)
