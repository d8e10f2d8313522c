"""Puts the screen of `tiercel top` on a terminal, and hands the terminal back as it was, however the command ends.

On a terminal: the alternate screen, keys read one by one, no mouse. Elsewhere, and with `once`: plain lines.
"""

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tiercel.errors import StatusError
from tiercel.tune.live.screen import Line, Weight, lines
from tiercel.tune.live.watching import Look, Watcher

_STYLES = {Weight.PLAIN: "", Weight.HEAD: "bold", Weight.WARNING: "yellow"}
_PLAIN_WIDTH = 160
_QUIT, _NEXT = "q", "n"
_FUNCTION_KEYS = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.|.)?")
"""Arrows and the like: several bytes, some of them letters."""


def show_once(watcher: Watcher, interval_s: float, output: TextIO) -> None:
    """Print one screen: two looks, so that rates are known.

    Raises:
        StatusError: the cache does not answer.
    """
    look = watcher.look()
    if look.reason is None and look.history.now.seconds <= 0:
        time.sleep(interval_s)
        look = watcher.look()
    if look.reason is not None:
        raise StatusError(look.reason)
    _print(look, output)


def show_plain(watcher: Watcher, interval_s: float, output: TextIO) -> None:
    """Print a screen at every interval, until it is interrupted or nobody reads it."""
    while True:
        _print(watcher.look(), output)
        output.write("\n")
        output.flush()
        time.sleep(interval_s)


def _print(look: Look, output: TextIO) -> None:
    output.writelines(f"{line.text}\n" for line in lines(look, _PLAIN_WIDTH))
    output.flush()


def is_screen(console: Console) -> bool:
    """Whether there is a terminal that knows an alternate screen."""
    return console.is_terminal and not console.is_dumb_terminal


def show_live(watcher: Watcher, interval_s: float, console: Console) -> None:
    """Show the screen until q or Ctrl-C is pressed."""
    with (
        _keys() as keyboard,
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
    ):
        while True:
            live.update(_drawn(watcher.look(), console, keyboard is not None), refresh=True)
            key = _wait_for_key(keyboard, interval_s)
            if key == _QUIT:
                return
            if key == _NEXT:
                watcher.next()


def _drawn(look: Look, console: Console, has_keys: bool) -> Text:
    """The screen as it fits the terminal now."""
    width, height = console.size
    shown = lines(look, width)
    room = max(1, height - 1)
    left_out = f"  {len(shown) - room} lines more: enlarge the terminal" if len(shown) > room else ""
    others = "  n next cache" if look.count > 1 and has_keys else ""
    leave = "q quit" if has_keys else "Ctrl-C quits"
    shown = [*shown[:room], *([Line("")] * (room - len(shown)))]
    footer = f"{leave}{others}{left_out}"[:width]
    drawn = Text(no_wrap=True, overflow="crop", end="")
    for line in shown:
        drawn.append(line.text + "\n", style=_STYLES[line.weight])
    return drawn.append(footer, style="dim")


def _wait_for_key(keyboard: int | None, seconds: float) -> str | None:
    """The key of ours pressed within the time; None if there was none or there is no keyboard."""
    if keyboard is None:
        time.sleep(seconds)
        return None
    ready, _, _ = select.select([keyboard], [], [], seconds)
    if not ready:
        return None
    pressed = os.read(keyboard, 256)
    if not pressed:
        return _QUIT  # the terminal is gone
    keys = _FUNCTION_KEYS.sub(b"", pressed).decode("ascii", "replace").lower()
    return next((key for key in (_QUIT, _NEXT) if key in keys), None)


@contextmanager
def _keys() -> Iterator[int | None]:
    """Read keys one by one without showing them; gives the keyboard, None if the input is no terminal. What a shell or a closed
    window ends the command with is raised, so that the terminal is handed back, and Ctrl-Z is not taken."""
    previous = {name: signal.signal(name, _leave) for name in (signal.SIGTERM, signal.SIGHUP)}
    previous[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    before = None if keyboard is None else termios.tcgetattr(keyboard)
    try:
        if keyboard is not None:
            tty.setcbreak(keyboard)
        yield keyboard
    finally:
        if keyboard is not None and before is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        for name, handler in previous.items():
            signal.signal(name, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
