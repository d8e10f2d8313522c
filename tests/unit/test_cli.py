"""The command line: what it prints, where, and with which exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, config
from tests.helpers.telemetry_samples import sample_snapshot
from tiercel import Cache, cli
from tiercel.cli import render
from tiercel.cli.app import app
from tiercel.cli.ls import print_folders
from tiercel.errors import ConfigError, TierFailedError
from tiercel.telemetry.status import SOCKET_NAME, StatusServer
from tiercel.tiers.inspect import FolderReport

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """A cache directory in which a cache answers."""
    folder = tmp_path / "cache" / "tiercel-v1-abab"
    folder.mkdir(parents=True)
    server = StatusServer(sample_snapshot, path=folder / SOCKET_NAME, runtime=tmp_path / "run")
    yield tmp_path / "cache"
    server.close()


@pytest.mark.parametrize("place", ["", "tiercel-v1-abab", f"tiercel-v1-abab/{SOCKET_NAME}"])
def test_stats_shows_a_running_cache_by_directory_folder_and_socket(running: Path, place: str, capsys: Capture) -> None:
    assert cli.main(["stats", str(running / place)]) == 0
    shown = capsys.readouterr().out
    for text in (
        "pid 4242",
        "model tiny",
        "66.7% of 576 tokens",
        "corrupt 1, ok 15",
        "note: io_uring is not available",
    ):
        assert text in shown


def test_stats_as_json_is_the_whole_snapshot(running: Path, capsys: Capture) -> None:
    assert cli.main(["stats", str(running), "--json"]) == 0
    (snapshot,) = json.loads(capsys.readouterr().out)
    assert snapshot["tiers"][1]["num_free"] == 940
    assert snapshot["activity"]["counters"]["recompute"] == {"corrupt": 3, "some": 1}


def test_markup_in_a_name_is_printed_as_it_is(capsys: Capture) -> None:
    render.print_table("", ["name"], [["[bold]x[/bold]"]])
    render.print_line("[red]y[/red]")
    shown = capsys.readouterr().out
    assert "[bold]x[/bold]" in shown
    assert "[red]y[/red]" in shown


def test_nothing_is_cut_off_when_the_output_is_no_terminal(capsys: Capture) -> None:
    long = "k" * 500
    render.print_table("", ["name", "value"], [[long, "1"]])
    assert long in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nonsense"], 2, "nonsense"),
        (["stats", "--nonsense"], 2, "--nonsense"),
        (["stats", "/no/such/place"], 2, "neither a process id nor a path"),
        (["stats", "4194305"], 1, "no running cache answers"),
        (["config", "explain", "/no/such/file.yaml"], 2, "/no/such/file.yaml"),
        (["record", "info", "/no/such/file"], 1, "error: /no/such/file: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error(words: list[str], code: int, text: str, capsys: Capture) -> None:
    assert cli.main(words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert text in shown.err


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("wrong"), 2), (TierFailedError("broken\ndisk"), 1), (OSError("no disk"), 1)]
)
def test_an_error_has_its_exit_code_and_debug_raises_it(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr("tiercel.cli.stats.read_status", fail)
    assert cli.main(["stats", "1"]) == code
    assert capsys.readouterr().err == "error: " + " ".join(str(error).split()) + "\n"
    with pytest.raises(type(error)):
        cli.main(["stats", "1", "--debug"])


@pytest.mark.parametrize("words", [["version"], ["--help"], ["config", "schema"]])
def test_a_closed_output_is_an_error_in_one_line(words: list[str]) -> None:
    command = f"exec {sys.executable} -c 'import sys, tiercel.cli; sys.exit(tiercel.cli.main())' {' '.join(words)} >&-"
    done = subprocess.run(["sh", "-c", command], check=False, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "error: the standard output is closed\n")


def test_an_interrupt_while_a_command_is_still_being_imported_is_quiet() -> None:
    code = (
        "import sys, tiercel.cli\n"
        "class Interrupted:\n"
        "    def find_spec(self, *_): raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "sys.exit(tiercel.cli.main(['version']))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_folder_is_listed_whatever_encoding_the_locale_has(tmp_path: Path) -> None:
    directory = tmp_path / "Schlüssel"
    Cache.open(MODEL, config(directory, host=0, disk=4)).close()
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", "import sys, tiercel.cli; sys.exit(tiercel.cli.main())", "ls", str(directory)]
    done = subprocess.run(command, check=False, capture_output=True, env=environ, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"problem" not in done.stdout
    done = subprocess.run([*command, "--json"], check=False, capture_output=True, env=environ, timeout=60)
    (folder,) = json.loads(done.stdout)
    assert os.fsencode(folder["path"]).startswith(os.fsencode(directory))


def test_of_a_folder_that_cannot_be_read_nothing_is_made_up(capsys: Capture) -> None:
    print_folders([FolderReport(path="/c/tiercel-v1-ab", problem="cannot be read (Permission denied)")])
    shown = capsys.readouterr().out
    assert "problem: /c/tiercel-v1-ab: cannot be read (Permission denied)" in shown
    assert "ago" not in shown
    assert "nobody" not in shown


def test_what_the_locale_cannot_show_is_a_question_mark(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", "import sys, tiercel.cli; sys.exit(tiercel.cli.main())", "stats", str(tmp_path)]
    with Cache.open(replace(MODEL, model_id="größer"), config(tmp_path, disk=4)):
        done = subprocess.run(command, check=False, capture_output=True, env=environ, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"model gr??er" in done.stdout


def test_help_and_version_succeed(capsys: Capture) -> None:
    assert cli.main(["--help"]) == 0
    assert "explain" not in capsys.readouterr().out
    assert cli.main(["config", "--help"]) == 0
    assert "explain" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert "io_uring" in capsys.readouterr().out
    assert cli.main(["version"]) == 0
    assert "cpu features" in capsys.readouterr().out


def test_explain_shows_values_sources_and_sizes(tmp_path: Path, capsys: Capture) -> None:
    settings, model = tmp_path / "cache.yaml", tmp_path / "config.json"
    settings.write_text("cache_config: {num_cpu_blocks: 64}\n", encoding="utf-8")
    facts = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512}
    model.write_text(json.dumps({**facts, "model_type": "llama", "torch_dtype": "bfloat16"}), encoding="utf-8")
    assert cli.main(["config", "explain", str(settings), "--model", str(model), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    rows = {row["key"]: row for row in shown["settings"] + shown["derived"]}
    assert (rows["num_cpu_blocks"]["value"], rows["num_cpu_blocks"]["source"]) == ("64", f"file {settings}")
    assert rows["tokens_per_block"]["source"] == "default"
    assert rows["token bytes"]["value"] == "2048"
    assert shown["notes"] == []
    assert cli.main(["config", "explain", str(settings)]) == 0
    assert "num_cpu_blocks" in capsys.readouterr().out


def test_explain_without_a_file_explains_the_environment_and_groups_what_to_know(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FLEXKV_CPU_CACHE_GB": "4", "FLEXKV_LOG_LEVEL": "INFO", "TIERCEL_NUM_CPU_BLOCKS": "5"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["config", "explain"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    groups = shown.out[shown.out.index("Given twice") :].split("\n\n")
    assert [group.splitlines()[0].split("(")[1] for group in groups] == [
        "contradictory):",
        "ignored):",
        "means something else):",
    ]
    assert "  FLEXKV_CPU_CACHE_GB: asks for num_cpu_blocks = '4GiB'" in groups[0]
    assert "  FLEXKV_LOG_LEVEL: " in groups[1]


def test_schema_prints_what_the_docs_hold(capsys: Capture) -> None:
    assert cli.main(["config", "schema"]) == 0
    page = Path(__file__).parents[2] / "docs" / "configuration.schema.json"
    assert json.loads(capsys.readouterr().out) == json.loads(page.read_text(encoding="utf-8"))


def test_a_reader_that_stops_ends_the_command_quietly(running: Path) -> None:
    command = [sys.executable, "-c", "import sys, tiercel.cli; sys.exit(tiercel.cli.main())", "stats", str(running)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, check=False, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_ends_the_command_quietly(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, tiercel.cli, tiercel.cli.stats as stats\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored, where a shell runs this in the background
        "def wait(*_): print('waiting', flush=True); time.sleep(60)\n"
        "stats.read_status = wait\n"
        "sys.exit(tiercel.cli.main(['stats', '1']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00002, "20 us"), (0.0035, "3.5 ms"), (1.2, "1.2 s"), (240, "4 min"), (9000, "2.5 h"), (267840, "3.1 d")],
)
def test_a_duration_is_shown_in_the_unit_that_suits_it(value: float, text: str) -> None:
    assert render.seconds_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")])
def test_a_size_is_shown_with_a_binary_unit(value: int, text: str) -> None:
    assert render.bytes_text(value) == text


def test_an_interrupt_while_the_native_core_is_being_loaded_ends_as_any_other() -> None:
    code = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from tiercel import cli
sys.exit(cli.main(["version"]))
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["node", "statu"], 'Unknown command "statu". Did you mean "status"? Available commands: run, start, status'),
        (["node", "statu", "--json"], 'Unknown command "statu". Did you mean "status"?'),
        (["node", "xyz"], 'Unknown command "xyz". Available commands: run'),
        (["node", "--confg", "x"], "Did you mean --config instead of --confg?"),
        (["node", "--config", "x", "y"], "Unused Tokens: ['y']"),
        (["node"], "--config requires an argument"),
        (["trace", "inf"], 'Unknown command "inf". Did you mean "info"?'),
    ],
)
def test_a_mistyped_command_is_told_with_the_one_that_is_near(words: list[str], told: str, capsys: Capture) -> None:
    assert cli.main(words) == 2
    assert told in capsys.readouterr().err


def test_what_takes_more_memory_than_there_is_ends_with_one_line(capsys: Capture) -> None:
    def take_all() -> None:
        raise MemoryError

    app.command(take_all, name="take-all")
    try:
        assert cli.main(["take-all"]) == 1
    finally:
        del app["take-all"]
    assert capsys.readouterr().err == "error: there is not enough memory for that; give smaller sizes or counts\n"
