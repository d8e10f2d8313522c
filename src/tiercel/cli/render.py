"""How numbers look on the terminal: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class _Terminal(Console):
    """A console that leaves a broken pipe to `main`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_json(value: object) -> None:
    """Print a message, a dataclass or plain data as indented JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_line(text: str) -> None:
    """Print one line as it is, without markup or wrapping."""
    _Terminal(soft_wrap=True).print(Text(text))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; numbers stand on the right, and nothing in a cell is taken for markup."""
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    texts = [list(row) for row in rows]
    for number, column in enumerate(columns):
        is_number = bool(texts) and all(row[number][:1].isdigit() or row[number] in ("", "-") for row in texts)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in texts:
        table.add_row(*(Text(cell) for cell in row))
    console = _Terminal()
    if not console.is_terminal:  # a pipe has no width: nothing may be cut or wrapped
        widths = (max(len(row[number]) + 4 for row in (columns, *texts)) for number in range(len(columns)))
        console = _Terminal(width=sum(widths))
    console.print(table)


def bytes_text(num_bytes: float) -> str:
    """Return a size with a binary unit: 1536 is "1.5 KiB"."""
    for unit in BYTE_UNITS[:-1]:
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} {BYTE_UNITS[-1]}"


def rate_text(num_bytes: float, seconds: float) -> str:
    """Return bytes per second, or "-" if nothing was moved."""
    return f"{bytes_text(num_bytes / seconds)}/s" if seconds > 0 and num_bytes else "-"


def seconds_text(seconds: float) -> str:
    """Return a duration in the unit that suits it: "20 us", "3.5 ms", "1.2 s", "4.0 min", "2.5 h", "3.1 d"."""
    for limit, unit, scale in ((1e-3, "us", 1e6), (1.0, "ms", 1e3), (120.0, "s", 1.0), (7200.0, "min", 1 / 60)):
        if seconds < limit:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86_400:.3g} d"


def counts_text(counts: dict[str, int]) -> str:
    """Return named counts as "name 3, other 1", or "none"."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
