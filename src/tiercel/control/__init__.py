"""The control half: from "this sequence, please" to frozen plans, and from completions to index states.

It does no I/O, starts no thread and reads no clock, so the facade (`cache`) and a simulator drive the same code:

    lookup()                    -> Lookup: what is stored, what of it to load; holds pins
    begin_load/store/prefetch() -> Operation: a Plan plus the pins and reservations that it stands on
    complete(operation, c)      -> the slots that became void; the index knows the outcome
    finish(operation)           -> pins and reservations are let go

Callers serialise begin_*, complete and reset, since tiers must see frees and reservations in the order in which they were
decided; lookup may run at any time, from any thread.
"""

from tiercel.control.control import Control, ControlSettings
from tiercel.control.operation import PENDING, Lookup, Operation

__all__ = ["PENDING", "Control", "ControlSettings", "Lookup", "Operation"]
