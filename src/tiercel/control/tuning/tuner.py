"""The life of a change: tried, judged, kept or undone, and the rest that follows. See the package's docstring."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tiercel.control.settings import ControlSettings, Tuned
from tiercel.control.tuning.counts import Counts, Window
from tiercel.control.tuning.judging import Knob, Proposal, judge, knobs, propose
from tiercel.tiers.base import TierName


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is seen before something is changed, and how long nothing is changed after that.

    Attributes:
        window_lookups, window_s: a window lasts until both have passed.
        num_windows: windows before a change and after it that are held against each other; at least two.
        rest_s: rest of a knob after a change that was kept. After one that was undone it is twice as long, and twice as long
            again for each one undone in a row, up to `rest_s_max`.
    """

    window_lookups: int = 1000
    window_s: float = 60.0
    num_windows: int = 4
    rest_s: float = 1800.0
    rest_s_max: float = 86400.0


class Action(enum.Enum):
    """What became of a change."""

    TRIED = "tried"
    KEPT = "kept"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something to apply, tell and count. `before` and `after` are values of the knob; undoing goes back to the older one."""

    knob: Knob
    action: Action
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Trial:
    """A change that has not been judged yet: what stood before it, and the windows seen then."""

    proposal: Proposal
    was: Tuned
    before: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class _Rest:
    """A knob's rest: until when, and how many changes in a row were undone."""

    until_s: float = float("-inf")
    num_undone: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunerState:
    """Everything that tuning remembers.

    Attributes:
        tuned: what stands now.
        counts, counted_s: where the open window began; None before the first look.
        windows: closed ones since the last change, as many as are needed.
    """

    settings: ControlSettings
    tuned: Tuned
    knobs: tuple[Knob, ...]
    counts: Counts | None = None
    counted_s: float = 0.0
    windows: tuple[Window, ...] = ()
    trial: _Trial | None = None
    rests: Mapping[Knob, _Rest] = field(default_factory=dict)

    def text(self, knob: Knob, tuned: Tuned | None = None) -> str:
        """The value of a knob in words, as it stands or in another state."""
        tuned = self.tuned if tuned is None else tuned
        if knob is Knob.ADMISSION:
            return tuned.admission.value
        return f"{self.settings.high_watermark(TierName.HOST, tuned.host_room):.3g}"


def start(settings: ControlSettings) -> TunerState:
    """The state before the first look: what the settings say stands."""
    return TunerState(settings=settings, tuned=settings.untuned, knobs=knobs(settings))


def look(
    state: TunerState, counts: Counts, now_s: float, limits: Limits | None = None
) -> tuple[TunerState, Change | None]:
    """Take in what was counted, and say whether something is to change now.

    Args:
        counts: since the cache was opened, never less than at an earlier look.
        now_s: monotonic seconds.
    """
    limits = Limits() if limits is None else limits
    began = state.counts
    if began is None:
        return replace(state, counts=counts, counted_s=now_s), None
    if counts.resets != began.resets:
        return _forget(replace(state, counts=counts, counted_s=now_s), now_s, limits)
    if counts.lookups - began.lookups < limits.window_lookups or now_s - state.counted_s < limits.window_s:
        return state, None
    windows = (*state.windows, counts.since(began))
    state = replace(state, counts=counts, counted_s=now_s, windows=windows)
    if state.trial is not None:
        return _judge(state, state.trial, now_s, limits)
    state = replace(state, windows=windows[-limits.num_windows :])
    return _try(state, now_s) if len(state.windows) == limits.num_windows else (state, None)


def _try(state: TunerState, now_s: float) -> tuple[TunerState, Change | None]:
    for knob in state.knobs:
        if now_s < state.rests.get(knob, _Rest()).until_s:
            continue
        proposal = propose(knob, state.tuned, state.windows)
        if proposal is not None:
            trial = _Trial(proposal, state.tuned, state.windows)
            change = _change(state, trial, Action.TRIED, proposal.reason)
            return replace(state, tuned=proposal.tuned, trial=trial, windows=()), change
    return state, None


def _judge(state: TunerState, trial: _Trial, now_s: float, limits: Limits) -> tuple[TunerState, Change | None]:
    if len(state.windows) <= limits.num_windows:
        return state, None
    settled = state.windows[1:]
    verdict = judge(trial.proposal, trial.was, trial.before, settled)
    knob = trial.proposal.knob
    if verdict.helped:
        rest = _Rest(now_s + limits.rest_s)
        kept = replace(state, trial=None, windows=(), rests={**state.rests, knob: rest})
        return kept, _change(state, trial, Action.KEPT, verdict.reason)
    num_undone = state.rests.get(knob, _Rest()).num_undone + 1
    # The exponent is bounded, since a float is not.
    rest_s = min(limits.rest_s_max, limits.rest_s * 2 ** min(num_undone, 64))
    rests = {**state.rests, knob: _Rest(now_s + rest_s, num_undone)}
    undone = replace(state, tuned=trial.was, trial=None, windows=(), rests=rests)
    reason = f"{verdict.reason}; not tried again for {rest_s / 60:.3g} min"
    return undone, _change(state, trial, Action.UNDONE, reason)


def _forget(state: TunerState, now_s: float, limits: Limits) -> tuple[TunerState, Change | None]:
    """Begin anew with empty tiers; a change that has not been judged yet cannot be any more.

    Its knob rests, or a cache that is reset again and again would go to and fro without ever coming to a verdict.
    """
    trial = state.trial
    if trial is None:
        return replace(state, windows=()), None
    knob = trial.proposal.knob
    rest = _Rest(now_s + limits.rest_s, state.rests.get(knob, _Rest()).num_undone)
    undone = replace(state, tuned=trial.was, trial=None, windows=(), rests={**state.rests, knob: rest})
    reason = f"the cache was reset before the change could be judged; not tried again for {limits.rest_s / 60:.3g} min"
    return undone, _change(state, trial, Action.UNDONE, reason)


def _change(state: TunerState, trial: _Trial, action: Action, reason: str) -> Change:
    knob = trial.proposal.knob
    old, new = state.text(knob, trial.was), state.text(knob, trial.proposal.tuned)
    before, after = (new, old) if action is Action.UNDONE else (old, new)
    return Change(knob=knob, action=action, before=before, after=after, reason=reason)
