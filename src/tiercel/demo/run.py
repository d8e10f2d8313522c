"""`run_demo`: what `tiercel demo` calls."""

import importlib.util
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from tiercel.demo.display import ProgressDisplay
from tiercel.demo.options import DemoOptions
from tiercel.demo.report import write_report
from tiercel.demo.scenario import Scenario
from tiercel.demo.table import print_result
from tiercel.errors import TiercelError


def run_demo(options: DemoOptions, *, console: Console | None = None) -> int:
    """Run the demo, print its table and write its report.

    Takes one to three minutes. Starts and ends processes; leaves no process and, unless asked to keep it, no file but
    the report. Call it from the main thread.

    Returns:
        0: every token and every byte was right; 1: one was not, or a part of the demo failed; 130: interrupted.

    Raises:
        ModuleNotFoundError: torch or transformers is not installed.
        ValueError: the documents are too few.
    """
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    console = console or Console()
    with _terminate_as_interrupt(), _folder(options, console) as directory:
        try:
            with ProgressDisplay(console) as display:
                result = Scenario(options, directory, display).run()
        except KeyboardInterrupt:
            console.print("interrupted")
            return 130
        except (TiercelError, OSError) as error:
            console.print(f"the demo failed: {error}", style="red", highlight=False, markup=False)
            return 1
    print_result(console, result)
    write_report(options.report, result)
    console.print(f"Report: {options.report}")
    return 0 if result.verification.passed else 1


@contextmanager
def _folder(options: DemoOptions, console: Console) -> Iterator[Path]:
    """A folder of the demo's own, removed at the end."""
    directory: Path | None = None
    try:
        with _undisturbed():
            directory = Path(tempfile.mkdtemp(prefix="tiercel-demo-", dir=options.parent_directory))
        yield directory
    finally:
        if directory is not None and options.keep:
            console.print(f"Kept: {directory}")
        elif directory is not None:
            with _undisturbed():
                shutil.rmtree(directory)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for something short that must be done whole."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
