"""The command `tiercel`: parses, calls the library, prints. It holds no logic that the library lacks.

`main` is the entry point and the only place that turns errors into exit codes:

    0     done
    1     an operating fault: a cache that does not answer, a disk that fails
    2     the caller's mistake: an unknown option, a wrong value, a missing extra
    130   interrupted
    141   whoever read the output stopped reading

`tiercel doctor` ends with 2 if it found errors and, with --strict, with 1 if it found warnings; its report is on the standard
output then.

Only `print_*` functions and `main` write to the terminal. Modules are imported by the command that needs them, so that
`tiercel --help` stays quick.
"""

import errno
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING

from tiercel.errors import ConfigError, TiercelError

if TYPE_CHECKING:
    from cyclopts import CycloptsError

DEBUG_OPTION = "--debug"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after the command's name; those of this process by default.

    Returns:
        The exit code. With `--debug` the error is raised instead, with its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG_OPTION in words
    try:
        return _run([word for word in words if word != DEBUG_OPTION])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return 141
    except KeyboardInterrupt:
        if debug:
            raise
        return 130
    except ImportError as error:
        if debug or not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        return 130  # Ctrl-C while native code was imported
    except MemoryError:
        if debug:
            raise
        return _fail(1, OSError(errno.ENOMEM, "there is not enough memory for that; give smaller sizes or counts"))
    except (TiercelError, OSError, ValueError) as error:
        if debug:
            raise
        is_mistake = isinstance(error, ConfigError) or not isinstance(error, TiercelError | OSError)
        return _fail(2 if is_mistake else 1, error)


def _run(words: Sequence[str]) -> int:
    """Run the command that the words name.

    Raises:
        ValueError: there is no such command or option. Or what the command raises.
        OSError: nobody can read the output.
    """
    import numpy  # noqa: F401  (first: Ctrl-C while the native core imports it would be an ImportError of the core)
    from cyclopts import CycloptsError

    from tiercel.cli.app import app

    if sys.stdout is None:
        raise OSError(errno.EBADF, "the standard output is closed")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what the locale cannot show is a question mark, not the end
    try:
        code = app(words)
    except CycloptsError as error:
        raise ValueError(str(_unknown_command(error) or error)) from error
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _unknown_command(error: "CycloptsError") -> "CycloptsError | None":
    """What to say instead where a word names no command below one that does something by itself, as `tiercel node` does: it is
    taken for a stray argument there. None if there is no such word."""
    from cyclopts import UnknownCommandError

    words, app = error.unused_tokens, error.app
    has_commands = app is not None and any(not name.startswith("-") for name in app)
    if not words or words[0].startswith("-") or not has_commands:
        return None
    if error.root_input_tokens != [*(error.command_chain or ()), *words]:
        return None  # an option stands before it
    return UnknownCommandError(unused_tokens=words, app=app)


def _fail(code: int, error: Exception) -> int:
    """Print the error as one line and return the exit code."""
    told = str(error)
    if isinstance(error, OSError) and error.strerror and not isinstance(error, TiercelError):
        told = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    line = "".join(character if character.isprintable() else "?" for character in " ".join(told.split()))
    print(f"error: {line or type(error).__name__}", file=sys.stderr)
    return code
