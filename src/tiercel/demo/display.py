"""What a person sees while the demo works: one progress bar per stage."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column


class ProgressDisplay:
    """Progress bars on a console, from `__enter__` to `__exit__`."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, title: str, total: int) -> None:
        """Begin a stage of so many requests."""
        if self._task is not None:
            self._progress.update(self._task, note="")
        self._task = self._progress.add_task(title, total=total, note="")

    def advance(self, note: str) -> None:
        """One more is done."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, note=note)

    def note(self, note: str) -> None:
        """Say what is going on in the current stage."""
        if self._task is not None:
            self._progress.update(self._task, note=note)
