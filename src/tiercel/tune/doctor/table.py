"""The table of all checks, in the order in which they are reported and described.

A check is in the table because it stands in one of these files: none can be declared and forgotten.
"""

from tiercel.tune.doctor.check import Check
from tiercel.tune.doctor.checks import directories, fallbacks, faults, filesystems, limits, settings, speed

CHECKS: tuple[Check, ...] = tuple(
    found
    for module in (faults, settings, directories, filesystems, limits, fallbacks, speed)
    for found in vars(module).values()
    if isinstance(found, Check)
)
