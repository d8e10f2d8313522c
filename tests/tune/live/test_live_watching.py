"""Which cache `tiercel top` follows, and across what."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.helpers.telemetry_samples import sample_snapshot
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.telemetry.status import StatusServer
from tiercel.tune.live.watching import Look, Watcher


class Caches:
    """Status servers of made-up caches."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.stack = ExitStack()

    def start(
        self, number: int, *, path: Path | None = None, fingerprint: str = "ab" * 16, uptime_s: int = 1
    ) -> StatusServer:
        sample = replace(sample_snapshot(), pid=number, started_at=1e9 + number, fingerprint=fingerprint)
        asked = iter(range(uptime_s, uptime_s + 1000))

        def snapshot() -> StatusSnapshot:
            return replace(sample, uptime_s=float(next(asked)))

        server = StatusServer(snapshot, path=path, runtime=self.runtime)
        self.stack.callback(server.close)
        return server


@pytest.fixture
def caches(tmp_path: Path) -> Iterator[Caches]:
    made = Caches(tmp_path / "run")
    with made.stack:
        yield made


def pid_of(look: Look) -> int | None:
    return None if look.history.latest is None else look.history.latest.pid


def test_the_first_running_cache_is_followed(caches: Caches) -> None:
    caches.start(1)
    watcher = Watcher(runtime=caches.runtime)
    first, second = watcher.look(), watcher.look()
    assert (pid_of(first), first.reason, first.count) == (1, None, 1)
    assert second.history.now.seconds > 0


def test_the_next_one_is_shown_on_demand_and_the_first_again_after_the_last(caches: Caches) -> None:
    caches.start(1)
    caches.start(2, fingerprint="cd" * 16)
    watcher = Watcher(runtime=caches.runtime)
    seen = []
    for _ in range(3):
        look = watcher.look()
        seen.append((pid_of(look), look.number))
        assert look.count == 2
        watcher.next()
    assert seen[0] == seen[2]
    assert {number for _, number in seen} == {1, 2}
    assert {pid for pid, _ in seen} == {1, 2}


def test_a_cache_that_goes_away_and_comes_back_at_its_socket_is_followed(caches: Caches, tmp_path: Path) -> None:
    clock = iter(range(100))
    server = caches.start(1, path=tmp_path / "status.sock")
    watcher = Watcher(runtime=caches.runtime, clock=lambda: float(next(clock)))
    assert pid_of(watcher.look()) == 1
    server.close()
    gone = watcher.look()
    assert gone.reason is not None
    assert gone.silent_s > 0
    assert pid_of(gone) == 1, "what was known last is still told"
    caches.start(2, path=tmp_path / "status.sock")
    back = watcher.look()
    assert (pid_of(back), back.reason, back.history.now.seconds) == (2, None, 0)


def test_one_of_the_same_model_takes_the_place_and_one_of_another_does_not(caches: Caches, tmp_path: Path) -> None:
    server = caches.start(5, path=tmp_path / "status.sock")
    watcher = Watcher(runtime=caches.runtime)
    watcher.look()
    server.close()
    caches.start(6, fingerprint="cd" * 16)
    assert watcher.look().reason is not None
    caches.start(7)
    assert pid_of(watcher.look()) == 7


def test_who_takes_the_place_is_younger_and_one_that_ran_beside_it_is_not(caches: Caches, tmp_path: Path) -> None:
    """Whatever the time of day was when each began: it may have been set back, and number 3 began at an earlier one."""
    server = caches.start(5, path=tmp_path / "status.sock", uptime_s=50)
    watcher = Watcher(runtime=caches.runtime)
    watcher.look()
    server.close()
    caches.start(6, uptime_s=60)
    assert watcher.look().reason is not None
    caches.start(3)
    assert pid_of(watcher.look()) == 3


def test_without_any_cache_the_watcher_waits_for_one(caches: Caches) -> None:
    watcher = Watcher(runtime=caches.runtime)
    assert watcher.look().reason == "no cache of this user is running"
    watcher.next()
    caches.start(3)
    assert pid_of(watcher.look()) == 3


def test_a_process_that_was_named_is_not_replaced_before_it_answered(caches: Caches) -> None:
    caches.start(3)
    look = Watcher(1, runtime=caches.runtime).look()
    assert look.reason is not None
    assert look.history.latest is None
