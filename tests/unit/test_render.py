"""Tables on terminals of any width: nothing is torn apart, and nothing is lost."""

import io
import json
import sys
from collections.abc import Callable

import pytest

from tiercel.cli import render

COLUMNS = ("folder", "blocks", "in use by")
PATH = "/var/lib/engine/cache/tiercel-v1-36ae90c4335ca0ad"
ROWS = [(PATH, "1234", "process 9900, since 2026-11-22 10:06:12 +0000"), ("/b", "5", "")]
Shown = Callable[[int], str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a terminal of a width shows of the rows."""

    class Terminal(render._Terminal):
        @property
        def is_terminal(self) -> bool:
            return True

    def show(width: int) -> str:
        written = io.StringIO()

        def opened(**settings: int) -> Terminal:
            return Terminal(file=written, color_system=None, width=settings.get("width", width))

        monkeypatch.setattr(render, "_Terminal", opened)
        render.print_table("", COLUMNS, ROWS)
        return written.getvalue()

    return show


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_every_line_fits_but_a_path_is_never_torn(shown: Shown, width: int) -> None:
    text = shown(width)
    assert PATH in text
    assert "1234" in text
    words = text.split()
    assert [word for word in ("process", "9900,", "2026-11-22", "10:06:12", "+0000") if word not in words] == []
    assert all(len(line.rstrip()) <= width or line.strip() == PATH for line in text.splitlines())


def test_a_narrow_terminal_gets_a_list_with_each_name_and_a_wide_one_a_table(shown: Shown) -> None:
    narrow, wide = shown(60).splitlines(), shown(100).splitlines()
    assert narrow[1].rstrip() == PATH
    assert narrow[2].split() == ["blocks", "1234"]
    assert wide[1].split() == ["folder", "blocks", "in", "use", "by"]


def test_what_would_steer_a_terminal_is_a_question_mark(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_line("session of m\x1b[2J\x9b0m\r")
    render.print_table("t\x1b[1m", ("name",), [["n\x1b]0;x\x07"]])
    shown = capsys.readouterr().out
    assert "session of m?[2J?0m?" in shown
    assert "t?[1m" in shown
    assert "n?]0;x?" in shown
    assert not set("\x1b\x9b\x07\r") & set(shown)


def test_json_that_an_encoding_cannot_hold_is_json_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", written)
    render.print_json({"path": "caf\u00e9", "rate": float("inf")})
    written.seek(0)
    assert json.loads(written.read(), parse_constant=pytest.fail) == {"path": "caf\u00e9", "rate": None}
