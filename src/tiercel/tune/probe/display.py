"""What a person sees while a probe runs: one bar over all steps, and what is being measured."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column


class ProbeDisplay:
    """A progress bar on a console, from `__enter__` to `__exit__`. A `run.Watcher`."""

    def __init__(self, console: Console) -> None:
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
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, num_steps: int) -> None:
        self._task = self._progress.add_task("", total=num_steps, completed=-1)

    def step(self, title: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, advance=1, description=escape(title))
