"""What a signal's handler raises gets through while arrays meet statuses and tiers."""

import signal
import sys
import threading
import time
from types import FrameType

import numpy as np
import pytest

from tiercel import BlockStatus, TierName

_SIGNALS = 200


class _ToldError(BaseException):
    pass


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
@pytest.mark.parametrize("member", [BlockStatus.OK, TierName.DISK], ids=str)
def test_no_exception_of_a_signal_handler_is_lost_in_a_comparison_or_a_fill(member: BlockStatus | TierName) -> None:
    statuses = np.zeros(4, np.uint8)
    raised = caught = 0

    def tell(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        raised += 1
        raise _ToldError

    previous = signal.signal(signal.SIGALRM, tell)
    try:
        for sent in range(_SIGNALS):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                until = time.monotonic() + 10
                # Left only once the handler has run: what it raised came out of here, or it is lost.
                while raised == sent and time.monotonic() < until:
                    _ = statuses == member
                    statuses[:] = member
            except _ToldError:
                caught += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert (raised, caught) == (_SIGNALS, _SIGNALS)


@pytest.mark.parametrize("kind", [BlockStatus, TierName])
def test_no_python_code_runs_when_a_type_is_asked_for_what_it_lacks(kind: type) -> None:
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_qualname) if event == "call" else None)
    try:
        found = hasattr(kind, "__array_interface__")
    finally:
        sys.setprofile(None)
    assert not found
    assert calls == []


@pytest.mark.parametrize("kind", [BlockStatus, TierName])
def test_members_are_found_by_name_number_and_attribute(kind: type[BlockStatus] | type[TierName]) -> None:
    for member in kind:
        assert getattr(kind, member.name) is kind(member.value) is kind[member.name] is member
    with pytest.raises(AttributeError, match="NONE"):
        _ = kind.NONE  # type: ignore[union-attr]
