"""`tiercel probe` as a command: a real, short probe, its file and table, wrong arguments, and its end at any moment."""

import os
import pty
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.machine_samples import figure, machine
from tests.helpers.seeds import chosen_seed
from tiercel import cli
from tiercel.tune.machine import read_machine, write_machine
from tiercel.tune.probe.options import ProbeOptions
from tiercel.tune.probe.run import existing_place

Capture = pytest.CaptureFixture[str]
CYCLES = int(os.environ.get("TIERCEL_INTERRUPT_CYCLES", "6"))


def test_a_quick_probe_writes_a_machine_and_shows_it(tmp_path: Path, capsys: Capture) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    output = tmp_path / "machine.json"
    assert cli.main(["probe", "--directory", str(place), "--quick", "--seconds", "2", "--output", str(output)]) == 0
    found = read_machine(output)
    assert [each.path for each in found.directories] == [str(place)]
    assert {each.operation for each in found.directories[0].figures} == {"read", "write", "mixed"}
    assert found.copy_core_bytes_per_s is not None
    assert min(found.checksum_bytes_per_s.value, found.hash_tokens_per_s.value, found.copy_bytes_per_s.value) > 1e6
    shown = capsys.readouterr().out
    for text in ("memory copy, one core", "read 1024 KiB, depth 8", "GB/s", str(place), f"written to {output}"):
        assert text in shown
    assert list(place.iterdir()) == []


def test_a_probe_with_time_for_it_measures_the_way_to_a_node_of_its_own(tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "machine.json"
    assert cli.main(["probe", "--quick", "--seconds", "10", "--output", str(output)]) == 0
    found = read_machine(output).node
    assert found is not None
    assert found.num_tokens == 16_384
    assert 0 < found.exchange_s.value < found.lookup_s.value < 1
    assert found.lookup_s.repeats >= 3
    shown = capsys.readouterr().out
    assert "lookup of 16K tokens" in shown
    assert "bare exchange" in shown


def test_a_short_probe_says_that_it_started_no_node(tmp_path: Path) -> None:
    output = tmp_path / "machine.json"
    assert cli.main(["probe", "--quick", "--seconds", "1", "--output", str(output)]) == 0
    assert read_machine(output).node is None
    assert any("way to a node was not measured" in note for note in read_machine(output).notes)


def test_a_node_that_was_probed_ends_with_its_prober_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom tiercel.tune.probe.node import _running_node\n"
        "with _running_node() as endpoint:\n    print(endpoint, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    folder = Path(ended.stdout.strip().removeprefix("ipc://")).parent
    assert folder.name.startswith("tiercel-probe-")
    until = time.monotonic() + 20
    while folder.exists():
        assert time.monotonic() < until, "the node goes on"
        time.sleep(0.05)


def test_directories_come_from_a_settings_file_and_need_not_exist_yet(tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "tiercel.yaml"
    config.write_text(
        f"cache_config:\n  enable_ssd: true\n  ssd_cache_dir: {tmp_path}/a/b\n  ssd_io_engine: threads\n"
        "  cpu_copy_threads: 1\n"
    )
    output = tmp_path / "machine.json"
    assert cli.main(["probe", "--config", str(config), "--quick", "--seconds", "1", "--output", str(output)]) == 0
    found = read_machine(output)
    assert (found.directories[0].path, found.directories[0].engine) == (f"{tmp_path}/a/b", "threads")
    assert found.copy_threads == 1
    assert any(f"measured in {tmp_path}" in note for note in found.notes)
    assert not (tmp_path / "a").exists()


def test_two_files_are_compared_without_measuring(tmp_path: Path, capsys: Capture) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    write_machine(machine(), old)
    write_machine(machine(copy_bytes_per_s=figure(30e9, spread=0.3), notes=("A note.",)), new)
    assert cli.main(["probe", "--compare", str(old), "--against", str(new)]) == 0
    shown = capsys.readouterr().out
    assert "changed beyond the spread: 1 figures; 11 did not" in shown
    row = next(line for line in shown.splitlines() if line.strip().startswith("processor ") and "1.50" in line)
    assert "20 GB/s" in row
    assert "not trusted" in row
    assert "note: A note." in shown
    assert not (tmp_path / "machine.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--directory", "/nonexistent"], "there is no such folder"),
        (["--output", "/nonexistent/machine.json"], "the folder for it does not exist"),
        (["--output", "/"], "is a folder"),
        (["--seconds", "0"], "must be from 1 to 3600"),
        (["--seconds", "nan"], "must be from 1 to 3600"),
        (["--seconds", "soon"], "seconds"),
        (["--config", "/nonexistent.yaml"], "nonexistent.yaml"),
        (["--depth", "4"], "--depth"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_measured(
    words: list[str], told: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["probe", *words]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_to_compare_with_is_read_before_anything_is_measured(tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert cli.main(["probe", "--compare", str(other), "--output", str(tmp_path / "machine.json")]) == 1
    assert "is no file of `tiercel probe`" in capsys.readouterr().err
    assert not (tmp_path / "machine.json").exists()


def test_a_place_is_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert existing_place(tmp_path / "a" / "b") == tmp_path
    assert existing_place(tmp_path) == tmp_path
    assert existing_place(Path("nowhere/at/all")) == Path.cwd()


def test_the_time_of_a_probe_has_bounds() -> None:
    with pytest.raises(ValueError, match="--seconds 4000"):
        ProbeOptions(seconds=4000)


@pytest.mark.timeout(30 + 15 * CYCLES)
def test_a_signal_at_any_moment_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    random_moments = random.Random(chosen_seed())
    place = tmp_path / "cache"
    place.mkdir()
    words = ["probe", "--directory", str(place), "--seconds", "60", "--output", str(tmp_path / "machine.json")]
    command = [sys.executable, "-c", f"import sys; from tiercel.cli import main; sys.exit(main({words!r}))"]
    for cycle in range(CYCLES):
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[cycle % 3]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        time.sleep(random_moments.uniform(0.5, 8.0))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == (130 if number is signal.SIGINT else -number), said.decode()
        assert list(place.iterdir()) == []
        assert not (tmp_path / "machine.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_cursor_of_the_terminal_back(number: signal.Signals, tmp_path: Path) -> None:
    shown, terminal = pty.openpty()
    words = ["probe", "--seconds", "60", "--output", str(tmp_path / "machine.json")]
    command = [sys.executable, "-c", f"import sys; from tiercel.cli import main; sys.exit(main({words!r}))"]
    process = subprocess.Popen(
        command, stdout=terminal, stderr=terminal, start_new_session=True, env=os.environ | {"TERM": "xterm"}
    )
    os.close(terminal)
    said = b""
    while b"\x1b[?25l" not in said:
        said += os.read(shown, 4096)
    process.send_signal(number)
    with suppress(OSError):  # how a terminal says that nobody writes to it any more
        while part := os.read(shown, 4096):
            said += part
    os.close(shown)
    assert process.wait(30) == (130 if number is signal.SIGINT else -number)
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")
