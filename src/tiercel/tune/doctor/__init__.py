"""`tiercel doctor`: what is wrong or slow with settings, a machine, cache directories and running caches, and what to do.

Collectors (`system`, `settings`, `directory`, `process`) look once, each in a process of its own that may hang without harm
(`looking`), and write down `facts`. The `checks` are pure functions over facts, listed in `table`; docs/doctor.md is written
from that table (`reference`). Nothing is ever changed.
"""

from tiercel.tune.doctor.diagnosing import Asked, diagnose, examine
from tiercel.tune.doctor.facts import Facts
from tiercel.tune.doctor.findings import Finding, Group, Report, Severity

__all__ = ["Asked", "Facts", "Finding", "Group", "Report", "Severity", "diagnose", "examine"]
