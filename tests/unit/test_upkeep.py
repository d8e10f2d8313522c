"""The thread that a cache does its background work on."""

import logging
import threading

import pytest

from tiercel.cache.upkeep import Upkeep


def test_a_defect_in_one_task_is_told_and_neither_ends_the_thread_nor_the_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds: list[str] = []
    ended = threading.Event()

    def broken() -> None:
        rounds.append("broken")
        raise ZeroDivisionError("a defect")

    def sound() -> None:
        rounds.append("sound")
        ended.set()

    upkeep = Upkeep((broken, sound))
    with caplog.at_level(logging.CRITICAL):
        upkeep.start()
        try:
            for _ in range(2):
                ended.clear()
                upkeep.wake()
                assert ended.wait(10)
        finally:
            upkeep.end()
            assert upkeep.join(10)
    assert rounds == ["broken", "sound", "broken", "sound"]
    assert "defect in background upkeep" in caplog.text
