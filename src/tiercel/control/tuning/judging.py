"""What is tried and why, and whether it helped: one rule per knob and direction. Pure; `tuner` calls it.

| change | is tried when each window shows |
|---|---|
| to `on_second_hit` | a disk that evicts, and more than 4 blocks written per block read back |
| to `through` | less than half as many blocks written as read back, hits below 95 %, no write refused |
| host watermark down | a tenth of the stores found no room ahead of need |
| host watermark up | nothing was evicted from the host tier |

| change | is kept if | and |
|---|---|---|
| to `on_second_hit` | writes fell by a quarter | hits did not fall |
| to `through` | hits rose | at most 4 blocks are written per block read back, and none was refused |
| host watermark down | stores without room fell by a quarter | neither hits nor the eviction age fell |
| host watermark up | stores still find room | hits did not fall |
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from tiercel.control.settings import Admission, ControlSettings, Tuned
from tiercel.control.tuning.counts import Window, compare
from tiercel.tiers.base import TierName

WASTE = 4.0
"""Blocks written per block read back above which writing is not worth it. Far from FRUGAL, so that what is left for the one
reason is not taken up again for the other."""

FRUGAL = 0.5
_WRITTEN_MIN = 0.05
"""Blocks written per block looked up below which there is nothing to save."""

_CRAMPED = 0.1
_UNCRAMPED = 0.01
_HITS_WANTED = 0.95
_GAIN_MIN = 0.25
"""Share by which what a change is made for must get less, beside noise."""

_HIT_SHARE_STEP = 0.01
_HIT_SHARE_NOISE_MAX = 0.05
"""Hits may fall by as much as noise may make them, but by no more than this, however large the noise."""

_AGE_LOSS_MAX = 0.25

ROOM_STEPS = (0.0, 0.02, 0.05, 0.1)
"""Shares of the host tier that may be kept free ahead of need, beside what the settings say."""


class Knob(enum.Enum):
    """What may be tuned."""

    ADMISSION = "ssd_admission"
    HOST_WATERMARK = "host_watermark"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that the last windows ask for."""

    knob: Knob
    tuned: Tuned
    reason: str


def knobs(settings: ControlSettings) -> tuple[Knob, ...]:
    """What can be tuned under these settings. `on_evict` is another structure: nothing goes there or leaves it."""
    found = []
    if TierName.DISK in settings.capacities and settings.ssd_admission is not Admission.ON_EVICT:
        found.append(Knob.ADMISSION)
    if TierName.HOST in settings.capacities:
        found.append(Knob.HOST_WATERMARK)
    return tuple(found)


def propose(knob: Knob, tuned: Tuned, windows: Sequence[Window]) -> Proposal | None:
    """Return the change of a knob that every one of the windows asks for, if there is one."""
    if knob is Knob.ADMISSION:
        through = tuned.admission is Admission.THROUGH
        return _admit_less(tuned, windows) if through else _admit_more(tuned, windows)
    return _make_room(tuned, windows) or _give_room_back(tuned, windows)


def _admit_less(tuned: Tuned, windows: Sequence[Window]) -> Proposal | None:
    wasteful = all(w.disk_evicted and w.written_share >= _WRITTEN_MIN and w.written_per_read > WASTE for w in windows)
    if not wasteful:
        return None
    told = total(windows)
    reason = (
        f"{_per_read(told)} written to disk, which evicts to take them, and it served {told.disk_hit_share:.1%} of the "
        f"blocks looked up"
    )
    return Proposal(Knob.ADMISSION, replace(tuned, admission=Admission.ON_SECOND_HIT), reason)


def _admit_more(tuned: Tuned, windows: Sequence[Window]) -> Proposal | None:
    frugal = all(
        w.disk_read and w.written_per_read <= FRUGAL and w.hit_share < _HITS_WANTED and not w.refused for w in windows
    )
    if not frugal:
        return None
    told = total(windows)
    reason = (
        f"{_per_read(told)} written to disk, while {1 - told.hit_share:.1%} of the blocks looked up were not stored"
    )
    return Proposal(Knob.ADMISSION, replace(tuned, admission=Admission.THROUGH), reason)


def _make_room(tuned: Tuned, windows: Sequence[Window]) -> Proposal | None:
    step = ROOM_STEPS.index(tuned.host_room)
    if step + 1 == len(ROOM_STEPS) or not all(w.cramped_share >= _CRAMPED for w in windows):
        return None
    told = total(windows)
    reason = (
        f"{told.cramped_share:.1%} of the stores found no room ahead of need in the host tier; what it evicts was unused "
        f"for {_age(told.eviction_age_s)}"
    )
    return Proposal(Knob.HOST_WATERMARK, replace(tuned, host_room=ROOM_STEPS[step + 1]), reason)


def _give_room_back(tuned: Tuned, windows: Sequence[Window]) -> Proposal | None:
    step = ROOM_STEPS.index(tuned.host_room)
    if step == 0 or any(w.host_evicted or w.cramped for w in windows):
        return None
    reason = "nothing was evicted from the host tier, so it needs no room ahead of need"
    return Proposal(Knob.HOST_WATERMARK, replace(tuned, host_room=ROOM_STEPS[step - 1]), reason)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a change helped, and the numbers."""

    helped: bool
    reason: str


def judge(change: Proposal, was: Tuned, before: Sequence[Window], after: Sequence[Window]) -> Verdict:
    """Hold the windows after a change against those before it."""
    hits = compare(before, after, lambda w: w.hit_share)
    kept_hits = hits.fall <= max(_HIT_SHARE_STEP, min(hits.noise, _HIT_SHARE_NOISE_MAX))
    hits_text = f"hit share {hits.before:.1%} before, {hits.after:.1%} after, noise {hits.noise:.1%}"
    told = total(after)
    if change.knob is Knob.ADMISSION and change.tuned.admission is Admission.THROUGH:
        rose = -hits.fall > max(_HIT_SHARE_STEP, hits.noise)
        helped = rose and told.written_per_read <= WASTE and not told.refused
        return Verdict(helped, f"{hits_text}; {_per_read(told)} written to disk, {told.refused} stores kept from it")
    if change.knob is Knob.ADMISSION:
        written = compare(before, after, lambda w: w.written_share)
        saved = written.fall > max(_GAIN_MIN * written.before, written.noise)
        text = (
            f"blocks written to disk per block looked up: {written.before:.2f} before, {written.after:.2f} after, noise "
            f"{written.noise:.2f}"
        )
        return Verdict(saved and kept_hits, f"{text}; {hits_text}")
    cramped = compare(before, after, lambda w: w.cramped_share)
    cramped_text = (
        f"stores without room ahead of need {cramped.before:.1%} before, {cramped.after:.1%} after, noise "
        f"{cramped.noise:.1%}"
    )
    if change.tuned.host_room < was.host_room:
        return Verdict(cramped.after <= _UNCRAMPED and kept_hits, f"{cramped_text}; {hits_text}")
    eased = cramped.fall > max(_GAIN_MIN * cramped.before, cramped.noise)
    ages = total(before).eviction_age_s, told.eviction_age_s
    kept_age = ages[1] >= (1 - _AGE_LOSS_MAX) * ages[0]
    text = f"{cramped_text}; evicted after {_age(ages[0])} unused before, {_age(ages[1])} after; {hits_text}"
    return Verdict(eased and kept_hits and kept_age, text)


def total(windows: Sequence[Window]) -> Window:
    """Several windows as one."""
    names = Window.__dataclass_fields__
    return Window(**{name: sum(getattr(window, name) for window in windows) for name in names})


def _per_read(window: Window) -> str:
    if not window.disk_read:
        return f"none was read back of {window.disk_written} blocks"
    return f"{window.written_per_read:.1f} blocks per block read back were"


def _age(seconds: float) -> str:
    return "no time, since nothing was evicted" if seconds == inf else f"{seconds:.3g} s"
