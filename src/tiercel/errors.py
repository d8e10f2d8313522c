"""What can go wrong, as one tree.

A caller's mistake is a ValueError or TypeError raised at the edge; `ConfigError` is both. An operating fault is one of
the others and carries its cause. A broken invariant is an `assert`. Connectors turn every `TiercelError` into
"recompute"; nobody else swallows one.

    TiercelError
    ├── ConfigError (also ValueError)   a setting: names the key, the value and the remedy
    ├── CacheClosedError                the cache was closed before or during the call
    ├── StaleTicketError                the cache was reset between the lookup and the launch
    ├── ThrottledError                  a bounded queue or a tier is full; try later or recompute
    ├── DeadlineError                   a wait or a move outlived its deadline
    ├── DeviceError                     a GPU, its driver or its compiler, or a rank's process, cannot be used
    ├── StatusError                     a running cache did not tell its state
    └── TierError                       a tier cannot serve
        ├── DirectoryLockedError        another process holds the cache directory
        ├── FormatError                 a file of ours, or a trace, that this version cannot read
        └── TierFailedError             the tier's device failed; it is out of service
"""


class TiercelError(Exception):
    """Base of every error that Tiercel raises on purpose."""


class ConfigError(TiercelError, ValueError):
    """A setting is unknown, out of range or contradicts another."""


class CacheClosedError(TiercelError):
    """The cache was closed before or during the call."""


class StaleTicketError(TiercelError):
    """The cache was reset after the lookup that this call builds on."""


class ThrottledError(TiercelError):
    """A bounded queue or a tier is full; nothing was started."""


class DeadlineError(TiercelError, TimeoutError):
    """A wait or a move outlived its deadline."""


class DeviceError(TiercelError):
    """A GPU, its driver or the compiler of its kernels, or a rank's process, cannot be used; the message names what was found and
    what to do."""


class StatusError(TiercelError):
    """No running cache answered at a status socket, or not in a form that this version reads."""


class TierError(TiercelError):
    """A tier cannot serve."""


class DirectoryLockedError(TierError):
    """Another live process holds the cache directory."""


class FormatError(TierError):
    """A file in the cache directory, a recording or a trace is not one that this version can read."""


class TierFailedError(TierError):
    """The tier's device failed; the tier is out of service until it is reopened."""
