"""What a person sees while a probe runs: one bar over all steps, and what is being measured.

The bar hides the terminal's cursor; a signal that ends the probe gives it back first.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

_Handler = Callable[[int, FrameType | None], Any] | int | None
_SHOW_CURSOR = b"\x1b[?25h"


class ProbeDisplay:
    """A progress bar on a console, from `__enter__` to `__exit__`, in the main thread. A `run.Watcher`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._previous: dict[signal.Signals, _Handler] = {}
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._previous = {name: signal.signal(name, self._leave) for name in (signal.SIGTERM, signal.SIGHUP)}
        try:
            self._progress.start()
        except BaseException:  # Ctrl-C, once the cursor is hidden
            with suppress(IndexError):  # what the console was to call for the bar is not there yet
                self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self._progress.stop()
        finally:  # a bar that was interrupted in its start cannot be stopped, and has hidden the cursor
            self._show_cursor()
            for name, handler in self._previous.items():
                signal.signal(name, handler)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        # Not by way of the bar, whose locks the code that was interrupted may hold.
        self._show_cursor()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def _show_cursor(self) -> None:
        if self._console.is_terminal:
            os.write(self._console.file.fileno(), _SHOW_CURSOR)

    def begin(self, num_steps: int) -> None:
        self._task = self._progress.add_task("", total=num_steps, completed=-1)

    def step(self, title: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, advance=1, description=escape(title))
