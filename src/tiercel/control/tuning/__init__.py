"""Tuning while the cache runs: what is watched, when something is tried, and whether it stays. Pure functions over frozen values.

    state = start(settings)
    state, change = look(state, counts, now_s)    # at a bounded interval; counts and time come in as arguments
    control.tune(state.tuned)                     # if there was a change; serialised like begin_*

| step | when |
|---|---|
| a window closes | so many lookups and seconds after the last one |
| a change is tried | every one of the last windows asks for it (`judging.propose`), and its knob does not rest |
| it is judged | after a window to settle and as many more as stood before it (`judging.judge`) |
| it is kept | its goal got better by more than the noise, and nothing else worse than allowed; the knob rests |
| it is undone | otherwise; the knob rests twice as long each time in a row |

One change is open at a time, so that what is measured is its own. The curve of load or recompute is learnt elsewhere
(`tiercel.costs`). `cache.tuning` calls this.
"""

from tiercel.control.tuning.counts import Counts, Window
from tiercel.control.tuning.judging import Knob
from tiercel.control.tuning.tuner import Action, Change, Limits, TunerState, look, start

__all__ = ["Action", "Change", "Counts", "Knob", "Limits", "TunerState", "Window", "look", "start"]
