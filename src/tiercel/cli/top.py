"""`tiercel top`: a running cache, live on the terminal."""

import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from tiercel.errors import StatusError
from tiercel.tune.live.terminal import is_screen, show_live, show_once, show_plain
from tiercel.tune.live.watching import Watcher

_INTERVAL_S = (0.1, 3600.0)


def top(
    *, pid: int | None = None, interval: float = 1.0, once: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Show a running cache live: tiers, bandwidths, queues, and what other capacities would bring.

    On a terminal: q quits, n shows the next cache. Elsewhere plain lines are printed at every interval.

    Args:
        pid: the cache's process; by default the first running cache of this user.
        interval: seconds from one look to the next, 0.1 to 3600.
        once: print one screen as plain lines and end.
    """
    if not _INTERVAL_S[0] <= interval <= _INTERVAL_S[1]:
        raise ValueError(f"--interval {interval:g}: must be {_INTERVAL_S[0]:g} to {_INTERVAL_S[1]:g} seconds")
    if pid is not None and (reason := Watcher(pid).look().reason) is not None:
        raise StatusError(reason)
    # Not the one that just looked: the first two looks of this one are an interval apart, or rates would be of milliseconds.
    watcher = Watcher(pid)
    console = Console()
    if once:
        show_once(watcher, interval, sys.stdout)
    elif is_screen(console):
        show_live(watcher, interval, console)
    else:
        show_plain(watcher, interval, sys.stdout)
