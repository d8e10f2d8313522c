"""Doctor on things that are really broken, as a user meets them: the command, in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.doctor_command import doctor, finish, of, start
from tests.helpers.small_engine import MODEL, SmallEngine, config, load_prompt, store_prompt
from tiercel import Cache, ModelConfig


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose cache in `tmp_path / "cache"` has stored a prompt and does nothing."""
    child = start(tmp_path / "cache")
    yield child
    finish(child)


def tree(directory: Path) -> dict[str, tuple[int, float]]:
    """Every file with its size and time of change."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime) for path in sorted(directory.rglob("*"))}


def test_a_cold_directory_is_told_as_it_is_and_left_as_it_was(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, disk=64)) as cache:
        store_prompt(cache, SmallEngine(cache.geometry), 1)
    before = tree(tmp_path)
    findings = doctor("--directory", tmp_path, expected=0)
    assert of(findings, "format-version") == [("ok", "24 of 64 blocks of small")]
    assert of(findings, "owner") == [("ok", "in use by nobody")]
    assert of(findings, "writable") == [("ok", "can be written")]
    assert tree(tmp_path) == before


def test_a_directory_in_memory_is_a_warning_and_an_exit_code_under_strict() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("this machine has no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        findings = doctor("--directory", directory, expected=0)
        ((severity, seen),) = of(findings, "filesystem")
        assert severity == "warning"
        assert "tmpfs" in seen
        doctor("--directory", directory, "--strict", expected=1)


def test_a_missing_directory_and_a_file_in_its_place_are_errors(tmp_path: Path) -> None:
    findings = doctor("--directory", tmp_path / "none", expected=2)
    assert of(findings, "directory") == [("error", "there is no such directory")]
    (tmp_path / "file").touch()
    findings = doctor("--directory", tmp_path / "file", expected=2)
    assert of(findings, "directory") == [("error", f"{tmp_path / 'file'} is no directory")]
    assert not (tmp_path / "none").exists()


def test_a_directory_mounted_read_only_is_an_error(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o ro none '{tmp_path}' && exec \"$@\""
    prefix = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount in a namespace of its own")
    findings = doctor("--directory", tmp_path, expected=2, prefix=prefix)
    ((severity, seen),) = of(findings, "writable")
    assert severity == "error"
    assert "read-only" in seen.lower()


def _without_roots_rights() -> tuple[str, ...]:
    """Words that run a command without root's right to enter everything."""
    if os.geteuid():
        return ()
    words = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    if shutil.which(words[0]) is None or subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("root may enter every directory, and setpriv, which takes that away, is not there")
    return words


def test_a_directory_that_may_not_be_entered_is_an_error() -> None:
    closed = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (closed / "tiercel-v1-abab").mkdir()
        closed.chmod(0)
        findings = doctor("--directory", closed, expected=2, prefix=_without_roots_rights())
        ((severity, seen),) = of(findings, "directory")
        assert (severity, "Permission denied" in seen) == ("error", True)
        assert of(findings, "direct-io") == of(findings, "writable") == []
    finally:
        closed.chmod(0o700)
        shutil.rmtree(closed)


def test_a_killed_owner_leaves_nothing_to_repair(tmp_path: Path) -> None:
    child = start(tmp_path)
    finish(child)
    findings = doctor("--directory", tmp_path, "--pid", child.pid, expected=2)
    ((severity, seen),) = of(findings, "owner")
    assert (severity, "ended without closing" in seen) == ("advice", True)
    ((severity, seen),) = of(findings, "answers")
    assert (severity, "there is no such process" in seen) == ("error", True)
    Cache.open(MODEL, config(tmp_path, disk=256)).close()
    assert of(doctor("--directory", tmp_path, expected=0), "owner") == [("ok", "in use by nobody")]


def test_a_directory_of_two_models_names_the_one_that_is_left_over(tmp_path: Path) -> None:
    other = ModelConfig(num_layers=2, num_kv_heads=2, head_size=16, dtype="float16", model_id="forgotten")
    Cache.open(other, config(tmp_path, disk=16)).close()
    Cache.open(MODEL, config(tmp_path, disk=16)).close()
    findings = doctor("--directory", tmp_path, expected=0)
    ((severity, seen),) = of(findings, "other-models")
    assert severity == "advice"
    assert "forgotten" in seen
    (found,) = [found for found in findings if found["check"] == "other-models"]
    assert found["remedy"].startswith("rm -r '")


def test_processes_that_are_none_or_have_no_cache_are_errors() -> None:
    findings = doctor("--pid", 4194305, expected=2)
    assert of(findings, "answers") == [("error", "there is no such process")]
    findings = doctor("--pid", os.getpid(), expected=2)
    ((_, seen),) = of(findings, "answers")
    assert "serves a status socket" in seen


def test_a_stopped_process_is_told_in_time(idle: subprocess.Popen[str]) -> None:
    idle.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    findings = doctor("--pid", idle.pid, expected=2)
    assert time.monotonic() - started < 20
    ((severity, seen),) = of(findings, "answers")
    assert severity == "error"
    assert "kill -CONT" in seen
    idle.send_signal(signal.SIGCONT)
    assert of(doctor("--pid", idle.pid, expected=0), "answers")[0][0] == "ok"


def test_a_running_cache_under_load_is_examined_with_its_directory(tmp_path: Path) -> None:
    child = start(tmp_path, busy=True)
    try:
        findings = doctor("--pid", child.pid, expected=0)
    finally:
        finish(child)
    assert of(findings, "answers")[0][1].startswith("small, up ")
    assert of(findings, "failing-disk") == [("ok", "disk: 0 corrupt blocks, 0 I/O errors")]
    assert of(findings, "stuck-tickets")[0][0] == "ok"
    ((severity, seen),) = of(findings, "owner")
    assert (severity, seen.startswith(f"in use by process {child.pid}")) == ("ok", True)
    assert of(findings, "version")[0][0] == "ok"


def test_all_directories_of_a_striped_cache_are_found_by_its_process_alone(tmp_path: Path) -> None:
    places = [str(tmp_path / "a"), str(tmp_path / "b")]
    settings = config(disk=64, ssd_cache_dir=";".join(places), status_socket=None)
    with Cache.open(MODEL, settings):
        findings = doctor("--pid", os.getpid(), expected=0)
    assert [found["subject"] for found in findings if found["check"] == "directory"] == places


def test_damage_that_a_running_cache_found_is_an_error(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=0, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        store_prompt(cache, engine, 1)
        (data,) = tmp_path.glob("*/data-0.bin")
        data.write_bytes(bytes(data.stat().st_size))
        assert load_prompt(cache, engine, 1) == 0
        findings = doctor("--pid", os.getpid(), expected=2)
    ((severity, seen),) = of(findings, "failing-disk")
    assert severity == "error"
    assert "24 corrupt blocks" in seen


def test_what_hangs_is_left_behind_and_the_rest_is_told(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to waits for ever, as a file on a mount that does not answer does."""
    folder = tmp_path / "cache" / "tiercel-v1-abab"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "manifest.json")
    os.mkfifo(tmp_path / "settings.yaml")
    started = time.monotonic()
    findings = doctor(
        "--directory", tmp_path / "cache", "--config", tmp_path / "settings.yaml", "--timeout-s", 6, expected=2
    )
    assert time.monotonic() - started < 30
    ((severity, seen),) = of(findings, "readable")
    assert (severity, "did not answer within 6 s" in seen) == ("error", True)
    ((severity, seen),) = of(findings, "directory")
    assert (severity, "could not be read in time" in seen) == ("warning", True)
    assert of(findings, "writable") == [("ok", "can be written")]
    assert of(findings, "memory")


def test_settings_are_held_against_the_machine_and_the_model(tmp_path: Path) -> None:
    file, model = tmp_path / "tiercel.yaml", tmp_path / "config.json"
    file.write_text(
        "cache_config:\n  num_cpu_blocks: 4TiB\n  enable_ssd: true\n  num_ssd_blocks: 1GiB\n"
        f"  ssd_cache_dir: '{tmp_path}/a;{tmp_path}/b'\n  enable_gds: true\n  evict_ratio: 0.4\n"
    )
    file.chmod(0o666)
    model.write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "hidden_size": 32,
                "torch_dtype": "float16",
            }
        )
    )
    findings = doctor("--config", file, "--model", model, "--gpu-memory", "900TiB", expected=2)
    for check, severity in (
        ("fits", "error"),
        ("striping", "warning"),
        ("file-permissions", "warning"),
        ("host-against-gpu", "warning"),
        ("disk-against-host", "warning"),
        ("block-size", "warning"),
        ("gpudirect-storage", "advice"),
        ("eviction", "advice"),
    ):
        assert [kind for kind, _ in of(findings, check)] == [severity], (check, of(findings, check))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "tiercel.yaml"]


def test_a_wrong_setting_is_the_finding_itself(tmp_path: Path) -> None:
    file = tmp_path / "tiercel.yaml"
    file.write_text("cache_config:\n  evict_ration: 0.1\n")
    ((severity, seen),) = of(doctor("--config", file, expected=2), "readable")
    assert severity == "error"
    assert "evict_ratio" in seen
