"""Benchmarks of hit rates over real traces, whose results are tables of a page in docs."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _harness import Row, make_parser
from _traces import add_argument


def page_arguments(description: str | None) -> argparse.Namespace:
    """The arguments: those of every benchmark, the traces, earlier results, and the page to renew."""
    parser = make_parser(description)
    add_argument(parser)
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="JSON", help="take earlier results instead of measuring"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the tables of this page")
    return parser.parse_args()


def measured_or_read(arguments: argparse.Namespace, measure: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The results: earlier ones if they were named, else new ones of the traces in the folder."""
    measured: dict[str, Any] = (
        json.loads(arguments.source.read_text()) if arguments.source else measure(arguments.traces)
    )
    return measured


def write_page(arguments: argparse.Namespace, measured: dict[str, Any], fill: Callable[[str], str]) -> None:
    """Write the results and the page, as far as they were asked for. fill: makes the page's text from its present one."""
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(measured, indent=1) + "\n")
    if arguments.markdown is not None:
        arguments.markdown.write_text(fill(arguments.markdown.read_text()))


def print_rows(rows: list[Row], digits: int) -> int:
    """Print each row beside its bound. Returns how many are not reached."""
    for row in rows:
        print(
            f"{row.name:70} {row.value:8.{digits}g} <= {row.bound:<{2 * digits}.{digits}g} {row.unit:3} {row.verdict}"
        )
    return sum(row.verdict == "NOT reached" for row in rows)
