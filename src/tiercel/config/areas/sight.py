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
    trace_spans: bool = setting(
        False,
        "Make OpenTelemetry spans of what the cache does.",
        kind=Kind.FLAG,
        measure="Lookup time with and without.",
    )
    record_path: str | None = setting(
        None, "File that lookups and stores are recorded to, keys only.", kind=Kind.TEXT, measure="Room on its disk."
    )
    record_bytes_max: int | str = setting(
        "1GiB",
        "Size of the recording: at half of it the file becomes FILE.1, and a new one begins.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(2**16, 2**40),
        measure="Bytes that an hour of your traffic takes.",
    )
