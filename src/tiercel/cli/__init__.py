"""The command `tiercel`: parses, calls the library, prints. It holds no logic that the library lacks.

`main` is the entry point and the only place that turns errors into exit codes:

    0     done
    1     an operating fault: a cache that does not answer, a disk that fails
    2     the caller's mistake: an unknown option, a wrong value, a missing extra
    130   interrupted
    141   whoever read the output stopped reading

Only `print_*` functions and `main` write to the terminal. Modules are imported by the command that needs them, so that
`tiercel --help` stays quick.
"""

import os
import sys
from collections.abc import Sequence

DEBUG_OPTION = "--debug"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after the command's name; those of this process by default.

    Returns:
        The exit code. With `--debug` the error is raised instead, with its traceback.
    """
    from cyclopts import CycloptsError

    from tiercel.cli.app import app
    from tiercel.errors import ConfigError, TiercelError

    words = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG_OPTION in words
    try:
        code = app([word for word in words if word != DEBUG_OPTION])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return 141
    except KeyboardInterrupt:
        if debug:
            raise
        return 130
    except (CycloptsError, ValueError) as error:  # ConfigError is a ValueError too
        if debug:
            raise
        return _fail(2, error)
    except (TiercelError, OSError) as error:
        if debug:
            raise
        return _fail(2 if isinstance(error, ConfigError) else 1, error)
    return code if isinstance(code, int) else 0


def _fail(code: int, error: Exception) -> int:
    """Print the error as one line and return the exit code."""
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"error: {text}", file=sys.stderr)
    return code
