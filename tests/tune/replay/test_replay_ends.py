"""Replays that are ended from outside: the directory is as clean as before and no process is left, whenever it comes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from tests.helpers.replay_samples import settings, write_inputs
from tiercel.tiers.disk_directory import DirectoryLock
from tiercel.tune.replay import FOLDER
from tiercel.tune.replay.leaving import leave_on_signals, undisturbed
from tiercel.tune.replay.setup import own_folders

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
MOMENTS = {"folder": "", "opened": "*/data-*", "journal": "*/journal-*"}


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Children heed every signal, also where the tests were started by nohup, or in a shell's background."""
    defaults = dict.fromkeys(CODES, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def begin(words: list[str], folder: Path, seen: str) -> "subprocess.Popen[str]":
    """Run a command as the leader of a process group, and return when a file of that pattern is in its folder."""
    code = "import sys; from tiercel.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    stop_at = time.monotonic() + 60
    while not (list(folder.glob(seen)) if seen else folder.exists()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < stop_at
        time.sleep(0.001)
    return process


def assert_nothing_left(process: "subprocess.Popen[str]", folder: Path, *codes: int) -> None:
    output, _ = process.communicate(timeout=60)
    assert process.returncode in codes, output
    assert "Traceback" not in output
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize("number", list(CODES))
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_signal_ends_a_replay_and_leaves_nothing(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    folder = tmp_path / "ssd" / FOLDER
    words = ["replay", *write_inputs(tmp_path), "--speedup", "0.01"]
    process = begin(words, folder, MOMENTS[moment])
    os.kill(process.pid, number)
    assert_nothing_left(process, folder, CODES[number])


def test_whoever_is_impatient_does_not_end_the_cleaning_up(tmp_path: Path) -> None:
    folder = tmp_path / "ssd" / FOLDER
    process = begin(["replay", *write_inputs(tmp_path), "--speedup", "0.01"], folder, MOMENTS["journal"])
    os.kill(process.pid, signal.SIGTERM)
    while process.poll() is None:
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.005)
    # The last of them may meet an interpreter that has taken its handlers back: there is nothing to clean up by then.
    assert_nothing_left(process, folder, CODES[signal.SIGTERM], -signal.SIGINT)


def test_sigterm_ends_a_proof_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ssd" / FOLDER
    words = ["prove", *write_inputs(tmp_path), "--machine", str(tmp_path / "machine.json"), "--speedup", "0.01"]
    process = begin([*words, "--bytes-min", "0B"], folder, MOMENTS["journal"])
    os.kill(process.pid, signal.SIGTERM)
    assert_nothing_left(process, folder, CODES[signal.SIGTERM])


def interrupted(act: Callable[..., object], number: signal.Signals) -> Callable[..., object]:
    """What does the same, but that a signal comes first."""

    def acting(*arguments: object) -> object:
        signal.raise_signal(number)
        return act(*arguments)

    return acting


@pytest.mark.parametrize(("name", "act"), [("rmtree", rmtree), ("DirectoryLock", DirectoryLock)])
@pytest.mark.parametrize("number", list(CODES))
def test_a_signal_waits_until_folders_are_made_or_removed(
    tmp_path: Path, name: str, act: Callable[..., object], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"tiercel.tune.replay.setup.{name}", interrupted(act, number))
    config = settings(tmp_path / "a", disk=16)
    folder = Path(config.ssd_cache_dirs[0])
    seen: list[bool] = []

    def hold_folders() -> None:
        with leave_on_signals(), own_folders(config):
            seen.append(folder.exists())

    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        hold_folders()
    assert seen == ([True] if name == "rmtree" else []), "a signal in the making is delivered when all is made"
    assert not folder.exists()


def test_signals_are_handled_as_before_when_a_replay_has_ended() -> None:
    before = {number: signal.getsignal(number) for number in CODES}
    with leave_on_signals(), undisturbed():
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in CODES} == before


def test_a_signal_that_the_process_was_told_to_ignore_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with leave_on_signals(), undisturbed():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_on_another_thread_nothing_is_changed() -> None:
    handlers: list[object] = []

    def look() -> None:
        with undisturbed():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
