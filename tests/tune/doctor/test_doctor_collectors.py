"""Doctor's collectors: what they read of the kernel's files, and of this machine with something taken away."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tier_samples import why_no_io_uring
from tiercel.config.mounts import mount_of
from tiercel.tune.doctor.diagnosing import Asked, collect
from tiercel.tune.doctor.directory import collect_directory, disk_below
from tiercel.tune.doctor.errands import LookAtDirectory, LookAtProcess
from tiercel.tune.doctor.looking import Answer, look_at_all
from tiercel.tune.doctor.process import pid_of, sockets
from tiercel.tune.doctor.settings import collect_settings
from tiercel.tune.doctor.system import chosen, collect_system, cpu_quota, expand_list

ROOT = Path(__file__).parents[3]
MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw,discard
40 27 0:40 / /mnt/my\\040share rw - nfs4 server:/x rw,vers=4.2
41 27 0:41 / /mnt/over rw - xfs /dev/sda1 rw
42 27 0:42 / /mnt/over ro - tmpfs none rw
"""


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files below a root, as the kernel would show them."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_mount_of_a_path_is_the_innermost_and_of_two_at_one_place_the_later() -> None:
    assert mount_of(Path("/cache"), MOUNTS) == ("/", "ext4", "/dev/nvme0n1p1", ("rw", "relatime", "discard"))
    assert mount_of(Path("/mnt/my share/a"), MOUNTS)[:2] == ("/mnt/my share", "nfs4")
    assert mount_of(Path("/mnt/my sharex"), MOUNTS)[:2] == ("/", "ext4")
    assert mount_of(Path("/mnt/over/x"), MOUNTS)[1] == "tmpfs"


def test_a_partition_s_disk_tells_its_scheduler(tmp_path: Path) -> None:
    queue = "sys/devices/disk/queue"
    write(
        tmp_path,
        {f"{queue}/rotational": "1\n", f"{queue}/scheduler": "none [bfq]\n", f"{queue}/read_ahead_kb": "128\n"},
    )
    (tmp_path / "sys/devices/disk/part").mkdir()
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/8:1").symlink_to("../../devices/disk/part")
    assert disk_below(os.makedev(8, 1), tmp_path) == (True, "bfq", 128)
    assert disk_below(os.makedev(0, 40), tmp_path) == (None, "", None)


@pytest.mark.parametrize(
    ("groups", "file", "text", "cores"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/cpu.max", "150000 100000\n", 1.5),
        ("0::/a/b\n", "sys/fs/cgroup/a/cpu.max", "max 100000\n", None),
        ("0::/outside\n", "sys/fs/cgroup/cpu.max", "50000 100000\n", 0.5),
        ("0::/\n", "sys/fs/cgroup/other", "", None),
        ("4:cpu,cpuacct:/a\n1:memory:/b\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n", 2.0),
        ("4:cpu,cpuacct:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n", None),
    ],
)
def test_the_tightest_control_group_sets_the_quota(
    tmp_path: Path, groups: str, file: str, text: str, cores: float | None
) -> None:
    write(tmp_path, {"proc/self/cgroup": groups, file: text})
    if file.endswith("quota_us"):
        write(tmp_path, {file.replace("quota", "period"): "100000\n"})
    assert cpu_quota(tmp_path) == cores


def test_lists_and_choices_of_the_kernel_are_read() -> None:
    assert expand_list("0-2,5\n") == {0, 1, 2, 5}
    assert expand_list("") == set()
    assert chosen("always within_size [advise] never deny force") == "advise"


def test_two_nodes_and_reserved_pages_are_seen(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable:  1024 kB\n",
            "proc/self/status": "Name:\tx\nMems_allowed_list:\t0-1\n",
            "sys/devices/system/node/has_memory": "0-1\n",
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "12\n",
            "proc/sys/kernel/io_uring_disabled": "2\n",
            "dev/nvidia0": "",
            "dev/nvidiactl": "",
        },
    )
    facts = collect_system(root)
    assert (facts.numa_nodes, facts.numa_nodes_allowed, facts.huge_pages_free) == (2, 2, 12)
    write(root, {"proc/self/numa_maps": "55d0 bind:1 file=/x mapped=2\n55d4 bind:1 anon=1\n"})
    assert collect_system(root).numa_nodes_allowed == 1
    write(root, {"proc/self/numa_maps": "55d0 default file=/x mapped=2\n"})
    assert collect_system(root).numa_nodes_allowed == 2
    assert (facts.io_uring_disabled, facts.num_gpus, facts.memory_bytes, facts.shm_bytes) == (2, 1, 1 << 20, None)


def test_secrets_are_named_and_their_values_left_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "tiercel.yaml"
    file.write_text("cache_config: {}\n")
    file.chmod(0o640)
    assert (collect_settings(file, None).mode, collect_settings(file, None).secret_keys) == (0o640, ())
    from tiercel.tune.doctor import settings

    keys = settings._secret_keys(
        {"remote": [{"redis_password": "hunter2", "user": "x"}], "auth_token": "y", "api_key": ""}
    )
    assert keys == ["auth_token", "redis_password"]


def test_sockets_are_found_by_name_alone(tmp_path: Path) -> None:
    for name in ("12.sock", "12-1.sock", "123.sock", "12.txt", "x.sock"):
        (tmp_path / name).symlink_to("/no/such/place")
    assert [path.name for path in sockets(12, tmp_path)] == ["12-1.sock", "12.sock"]
    assert [pid_of(path) for path in sockets(runtime=tmp_path)] == [12, 12, 123]
    assert sockets(runtime=tmp_path / "none") == []


def test_a_socket_that_never_answers_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "1.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        (answer,) = look_at_all([LookAtProcess(pid=os.getpid(), socket=str(path))], 30.0)
    assert "timed out" in json.loads(answer.line)["problem"]


def test_a_process_that_ended_before_it_was_asked_is_no_finding_unless_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    path = tmp_path / f"{ended.pid}.sock"
    path.touch()
    monkeypatch.setattr("tiercel.tune.doctor.diagnosing.sockets", lambda pid=None: [path])
    monkeypatch.setattr("tiercel.tune.doctor.diagnosing.look_at_all", _after(ended, look_at_all))
    assert collect(Asked(all_processes=True)).processes == ()
    (process,) = collect(Asked(pids=(ended.pid,))).processes
    assert "there is no such process" in process.problem


def _after(ended: "subprocess.Popen[bytes]", look: Callable[..., list[Answer]]) -> Callable[..., list[Answer]]:
    def wait_and_look(*words: Any) -> list[Answer]:
        ended.wait()
        return look(*words)

    return wait_and_look


def test_a_look_that_takes_too_long_gives_what_it_told_so_far(tmp_path: Path) -> None:
    (tmp_path / "tiercel-v1-ab").mkdir()
    os.mkfifo(tmp_path / "tiercel-v1-ab" / "manifest.json")
    (answer,) = look_at_all([LookAtDirectory(path=str(tmp_path))], 6.0)
    assert json.loads(answer.line)["is_complete"] is False
    assert answer.problem == f"the directory {tmp_path} did not answer within 6 s"


def test_a_directory_that_is_not_there_tells_of_its_parent(tmp_path: Path) -> None:
    (facts,) = collect_directory(tmp_path / "a" / "b")
    assert (facts.exists, facts.is_complete, facts.write_error) == (False, True, "")
    assert facts.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert not (tmp_path / "a").exists()


def test_limits_of_the_shell_are_seen_and_told(tmp_path: Path) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("this machine has no prlimit")
    code = "import sys, tiercel.cli; sys.exit(tiercel.cli.main())"
    limits = ["--nofile=300:300", f"--as={64 << 30}"]
    words = ["prlimit", *limits, sys.executable, "-c", code, "doctor", "--directory", str(tmp_path)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "machine: RLIMIT_NOFILE = 300" in done.stdout
    assert "machine: RLIMIT_AS = 64.00 GiB" in done.stdout


@pytest.mark.skipif(bool(why_no_io_uring()), reason=why_no_io_uring())
def test_a_container_that_forbids_io_uring_is_told(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport tests.faults.test_disk_without_io_uring as forbidding\n"
        "forbidding.forbid_io_uring()\nimport tiercel.cli\n"
        "sys.exit(tiercel.cli.main(['doctor', '--directory', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    if "no seccomp" in done.stdout:
        pytest.skip("this kernel has no seccomp filters")
    assert done.returncode == 0, done.stderr
    assert "machine: the kernel refuses io_uring (EPERM, operation not permitted)" in done.stdout
