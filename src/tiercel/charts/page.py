"""The parts of a report's page. Pure functions from words and markup to markup; words are escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from tiercel.charts.style import STYLE


def render_page(title: str, body: str) -> str:
    """Return a whole page that needs nothing else. body: markup."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def render_tile(number: str, meaning: str) -> str:
    """Return one large number and what it means."""
    return f'<div class="tile"><b>{escape(number)}</b><span>{escape(meaning)}</span></div>'


def render_figure(title: str, told: str, picture: str, legend: str = "") -> str:
    """Return a picture with its caption. picture, legend: markup."""
    return f"<figure><h2>{escape(title)}</h2><figcaption>{escape(told)}</figcaption>{legend}{picture}</figure>"


def render_legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return what colours mean. entries: (class of the style sheet, meaning)."""
    keys = "".join(f'<span><i class="key {style}"></i>{escape(name)}</span>' for style, name in entries)
    return f'<div class="legend">{keys}</div>'


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, its first column to the left and all others to the right."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
