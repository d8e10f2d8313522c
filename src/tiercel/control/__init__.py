"""The control half: from "this sequence, please" to frozen plans, and from completions to index states.

It does no I/O, starts no thread and reads no clock, so the facade (`cache`) and a simulator drive the same code:

    lookup()                    -> Lookup: what is stored, what of it to load; holds pins
    begin_load/store/prefetch() -> Operation: a Plan plus the pins and reservations that it stands on
    begin_promotion(), relief.begin_demotion() -> the same for copies to disk that nobody asked for
    complete(operation, c)      -> the slots that became void; the index knows the outcome
    finish(operation)           -> pins and reservations are let go
    relief.evict()              -> slots given up ahead of need
    tune()                      -> admission and watermarks are others from now on; `control.tuning` decides on them

Callers serialise begin_*, complete, finish, evict, tune and reset, since tiers must see frees and reservations in the order in
which they were decided; lookup may run at any time, from any thread.
"""

from tiercel.control.building import LOAD_MOVES_MAX
from tiercel.control.changes import BlockChange, ChangeKind
from tiercel.control.choosing import LoadChoice
from tiercel.control.control import Control
from tiercel.control.ghost import HitCurve
from tiercel.control.keyed import KeyedControl
from tiercel.control.operation import PENDING, Lookup, Operation, Pins, Promises, adopt, check_launchable
from tiercel.control.priorities import STEPS_MAX as PRIORITY_STEPS_MAX
from tiercel.control.priorities import Priority, check_priority
from tiercel.control.resolving import control_settings
from tiercel.control.settings import DEMOTION_START, Admission, ControlSettings, Tuned
from tiercel.control.storing import STORE_MOVES_MAX

__all__ = [
    "DEMOTION_START",
    "LOAD_MOVES_MAX",
    "PENDING",
    "PRIORITY_STEPS_MAX",
    "STORE_MOVES_MAX",
    "Admission",
    "BlockChange",
    "ChangeKind",
    "Control",
    "ControlSettings",
    "HitCurve",
    "KeyedControl",
    "LoadChoice",
    "Lookup",
    "Operation",
    "Pins",
    "Priority",
    "Promises",
    "Tuned",
    "adopt",
    "check_launchable",
    "check_priority",
    "control_settings",
]
