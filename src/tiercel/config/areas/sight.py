"""Where a running cache can be looked at."""

from dataclasses import dataclass

from tiercel.config.settings import Kind, setting


@dataclass(frozen=True, kw_only=True)
class SightSettings:
    """Where a running cache can be looked at."""

    status_socket: str | None = setting(
        None,
        "Socket at which `tiercel stats` reaches this process; null derives it.",
        kind=Kind.TEXT,
        measure="Nothing; set it where the derived path is not reachable.",
    )
    metrics_port: int | None = setting(
        None,
        "Port of the Prometheus metrics; null serves none, 0 takes a free one.",
        kind=Kind.COUNT,
        bounds=(0, 65535),
        measure="Nothing; take a free port.",
    )
