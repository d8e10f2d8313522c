"""How numbers look on the terminal: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WRAPPED_MIN = 20
"""Narrowest that a wrapped column is still read with ease."""
_GAP = 3

BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class _Terminal(Console):
    """A console that leaves a broken pipe to `main`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_json(value: object) -> None:
    """Print a message, a dataclass or plain data as indented JSON, which any encoding of the output can hold."""
    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # or a path is none in UTF-8
        plain = json.loads(json.dumps(msgspec.to_builtins(value)), parse_constant=lambda _: None)
        text = json.dumps(plain, indent=2)
    sys.stdout.write(text + "\n")


def print_line(text: str) -> None:
    """Print one line as it is, without markup or wrapping, and without what would steer a terminal."""
    _Terminal(soft_wrap=True).print(Text(_harmless(text)))


def _harmless(text: str) -> str:
    """Names of models, clients and files come from whoever wrote them."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; numbers stand on the right, and nothing in a cell is taken for markup.

    Only the last column is ever wrapped. On a terminal too narrow for the others, each row is printed as a list.
    """
    title, texts = _harmless(title), [[_harmless(cell) for cell in row] for row in rows]
    widths = [max(len(row[number]) for row in (columns, *texts)) for number in range(len(columns))]
    console = _Terminal()
    if not console.is_terminal:  # a pipe has no width: nothing may be cut or wrapped
        console = _Terminal(width=sum(widths) + 4 * len(widths))
    elif sum(widths[:-1]) + min(widths[-1], _WRAPPED_MIN) + _GAP * len(widths) > console.width:
        _print_lists(console, title, columns, texts)
        return
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        is_number = bool(texts) and all(row[number][:1].isdigit() or row[number] in ("", "-") for row in texts)
        is_last = number == len(columns) - 1
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=not is_last)
    for row in texts:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_lists(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print each row as its first cell and a line for each other one that is not empty."""
    if title:
        console.print(Text(title), soft_wrap=True)
    label_width = max(map(len, columns[1:]), default=0)
    for row in rows:
        console.print()
        console.print(Text(row[0], style="bold"), soft_wrap=True)
        cells = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        cells.add_column(min_width=label_width + 2, no_wrap=True)
        cells.add_column(overflow="fold")
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell:
                cells.add_row(Text(f"  {column}"), Text(cell))
        console.print(cells)
    console.print()


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
