"""`tiercel top` on a real terminal, and without one."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, cli

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
MOUSE = (b"\x1b[?1000h", b"\x1b[?1002h", b"\x1b[?1003h")
COMMAND = [sys.executable, "-c", "import sys; from tiercel.cli import main; sys.exit(main())", "top"]


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache.open(MODEL, config(host=8)) as opened:
        engine = SmallEngine(opened.geometry)
        sequence = opened.sequence(tokens(6, seed=1))
        opened.lookup(sequence).release()
        opened.store(sequence, engine.fill(sequence)).wait(10)
        yield opened


class Terminal:
    """A terminal of the kernel's, with the command on it."""

    def __init__(self, *words: str, columns: int = 80, rows: int = 24, **more: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        environment = {**os.environ, "TERM": "xterm-256color", **more}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        self.process = subprocess.Popen(
            [*COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        self.output = b""

    def read_until(self, text: bytes, timeout_s: float = 20) -> None:
        stop_at = time.monotonic() + timeout_s
        while text not in self.output:
            assert time.monotonic() < stop_at, f"{text!r} did not come: {self.output[-2000:]!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += os.read(self.master, 65536)

    def end(self) -> int:
        self.read_until(LEAVE)
        code = self.process.wait(20)
        assert termios.tcgetattr(self.slave) == self.before
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.parametrize("way", ["q", "interrupt", "terminate"])
def test_the_terminal_is_left_as_it_was(cache: Cache, way: str) -> None:
    with Terminal("--pid", str(os.getpid()), "--interval", "0.2") as terminal:
        terminal.read_until(b"would serve at")
        assert terminal.output.count(ENTER) == 1
        assert not any(sequence in terminal.output for sequence in MOUSE)
        assert termios.tcgetattr(terminal.slave) != terminal.before, "keys are read one by one meanwhile"
        if way == "q":
            os.write(terminal.master, b"q")
        else:
            terminal.process.send_signal(signal.SIGINT if way == "interrupt" else signal.SIGTERM)
        assert terminal.end() == {"q": 0, "interrupt": 130, "terminate": 128 + signal.SIGTERM}[way]
        assert terminal.output.count(LEAVE) == 1


def test_a_terminal_that_goes_away_ends_it_in_a_line(cache: Cache) -> None:
    master, slave = pty.openpty()
    command = [*COMMAND, "--pid", str(os.getpid()), "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        os.close(slave)
        shown = b""
        while ENTER not in shown:
            shown += os.read(master, 65536)
        os.close(master)
        _, told = process.communicate(timeout=20)
    assert told == b"error: Input/output error\n"
    assert process.returncode == 1


def test_a_small_terminal_says_that_lines_are_left_out(cache: Cache) -> None:
    with Terminal("--pid", str(os.getpid()), "--interval", "0.2", columns=40, rows=6) as terminal:
        terminal.read_until(b"lines more")
        os.write(terminal.master, b"\x1b[A\x1bOQ")  # keys that are none of ours, one with a Q in it
        terminal.output = b""
        terminal.read_until(b"lines more")
        os.write(terminal.master, b"\x1b[AQ")
        assert terminal.end() == 0


def test_once_prints_plain_lines(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--pid", str(os.getpid()), "--once", "--interval", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert f"pid {os.getpid()}" in shown
    assert "GB/s" in shown, "two looks were taken"
    assert "\x1b" not in shown


def test_once_tells_rates_of_an_interval(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a cache that was named, which is asked once more, so that a mistake is told at once."""
    stop = threading.Event()

    def look_up() -> None:
        while not stop.wait(0.02):
            cache.lookup(cache.sequence(tokens(6, seed=1))).release()

    thread = threading.Thread(target=look_up)
    thread.start()
    try:
        assert cli.main(["top", "--pid", str(os.getpid()), "--once", "--interval", "0.5"]) == 0
    finally:
        stop.set()
        thread.join()
    rate = re.search(r"lookups  ([0-9.]+)/s", capsys.readouterr().out)
    assert rate is not None
    assert 2 <= float(rate[1]) <= 50


@pytest.mark.parametrize("words", [(), ("--once",)])
def test_a_locale_that_cannot_show_a_letter_shows_a_question_mark(tmp_path: Path, words: tuple[str, ...]) -> None:
    model = replace(MODEL, model_id="größer")
    with (
        Cache.open(model, config(host=8)),
        Terminal("--pid", str(os.getpid()), *words, PYTHONIOENCODING="ascii") as terminal,
    ):
        terminal.read_until(b"gr??er")
        if not words:
            os.write(terminal.master, b"q")
            assert terminal.end() == 0


def test_on_a_pipe_plain_lines_come_at_every_interval(cache: Cache) -> None:
    with subprocess.Popen(
        [*COMMAND, "--pid", str(os.getpid()), "--interval", "0.1"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        titles = 0
        for line in process.stdout:
            assert b"\x1b" not in line
            titles += line.startswith(b"tiercel ")
            if titles == 3:
                break
        process.stdout.close()
        assert process.wait(20) == 141, "whoever read it stopped"


def test_a_process_without_a_cache_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--pid", str(2**22 + 1), "--once"]) == 1
    assert "no running cache answers" in capsys.readouterr().err


def test_an_interval_out_of_range_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--interval", "0"]) == 2
    assert "0.1 to 3600 seconds" in capsys.readouterr().err
