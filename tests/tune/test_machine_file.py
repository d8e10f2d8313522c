"""machine.json: what is written is read back, older files are read, newer ones refused by what they are."""

import errno
import json
import os
from pathlib import Path

import msgspec
import pytest

from tests.helpers.machine_samples import directory, gpu, machine, node
from tiercel.errors import FormatError
from tiercel.tune.machine import HugePages, StorageDevice, nearest_size, read_machine, write_machine

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "machine.json"


def test_a_machine_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    pages = HugePages(page_bytes=2 << 20, total=4, free=3, transparent_shared="never")
    whole = machine(gpus=(gpu(),), notes=("A note.",), hugepages=pages, numa_nodes=2, node=node())
    write_machine(whole, tmp_path / "machine.json")
    assert read_machine(tmp_path / "machine.json") == whole


def test_a_device_is_read_back_with_its_directory(tmp_path: Path) -> None:
    device = StorageDevice(
        name="nvme0n1", model="a disk", rotational=False, capacity_bytes=10**12, wear="life_time 0x01"
    )
    whole = machine(directories=(msgspec.structs.replace(directory(), device=device),))
    write_machine(whole, tmp_path / "machine.json")
    assert read_machine(tmp_path / "machine.json").directories[0].device == device


def test_a_file_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    write_machine(machine(), path)
    fields = json.loads(path.read_text())
    for name in ("copy_threads", "copy_core_bytes_per_s", "numa_nodes", "hugepages", "node"):
        del fields[name]
    for each in fields["directories"]:
        del each["device"]
        for figure in each["figures"]:
            del figure["fio_ratio"], figure["fio_bytes_per_s"]
    path.write_text(json.dumps(fields))
    older = read_machine(path)
    assert older.copy_core_bytes_per_s is None
    assert older.directories[0].device is None
    assert older.node is None
    assert older.copy_bytes_per_s == machine().copy_bytes_per_s


def test_a_file_with_fields_that_this_version_does_not_know_is_read(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    write_machine(machine(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"node_round_trip_s": 1e-4}))
    assert read_machine(path) == machine()


def test_a_newer_file_is_refused_as_newer_even_if_nothing_else_fits(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text('{"version": 2, "cpu": {"model": "x"}}')
    with pytest.raises(FormatError, match="has version 2, this is 1"):
        read_machine(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}', '{"version": "1"}', "\x00\xff"])
def test_another_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(FormatError, match="is no file of `tiercel probe`"):
        read_machine(path)


@pytest.mark.parametrize("value", [0.0, -5.0])
def test_a_figure_that_nothing_can_be_counted_with_is_refused_by_its_place(tmp_path: Path, value: float) -> None:
    path = tmp_path / "machine.json"
    write_machine(machine(), path)
    fields = json.loads(path.read_text())
    fields["directories"][0]["figures"][0]["bytes_per_s"]["value"] = value
    path.write_text(json.dumps(fields))
    with pytest.raises(FormatError, match=r"directories\[0\].figures\[0\].bytes_per_s.value.*measure again"):
        read_machine(path)


def test_a_full_disk_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "machine.json"
    write_machine(machine(), path)
    before = path.read_bytes()

    def full(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text[:100].encode(encoding))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left.*machine\.json"):
        write_machine(machine(notes=("Another.",)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    link, target = tmp_path / "link.json", tmp_path / "target.json"
    link.symlink_to(target)
    write_machine(machine(), link)
    assert link.is_symlink()
    assert read_machine(target) == machine()


@pytest.mark.parametrize(
    ("num_bytes", "nearest"), [(1, 1 << 20), (9 << 18, 4 << 20), (2 << 20, 1 << 20), (1 << 30, 8 << 20)]
)
def test_a_size_is_most_like_the_one_of_the_smaller_ratio(num_bytes: int, nearest: int) -> None:
    assert nearest_size([8 << 20, 1 << 20, 4 << 20], num_bytes) == nearest


def test_the_committed_machine_is_read_and_names_no_place_of_its_own() -> None:
    committed = read_machine(RESULT)
    assert [each.path for each in committed.directories] == ["/cache"]
    assert committed.directories[0].figures


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("copy_bytes_per_s", "value"), 1e308),
        (("copy_bytes_per_s", "value"), 1e-300),
        (("copy_bytes_per_s", "low"), -5.0),
        (("directories", 0, "figures", 0, "latency_p50_s"), -1.0),
        (("directories", 0, "figures", 0, "latency_p50_s"), 1e300),
        (("num_cores",), 0),
        (("copy_threads",), -2),
    ],
)
def test_a_file_with_figures_that_no_machine_has_is_refused_by_the_figure(
    tmp_path: Path, place: tuple[str | int, ...], value: float
) -> None:
    path = tmp_path / "machine.json"
    write_machine(machine(directories=(directory(),)), path)
    fields = json.loads(path.read_text())
    where = fields
    for key in place[:-1]:
        where = where[key]
    where[place[-1]] = value
    path.write_text(json.dumps(fields))
    with pytest.raises(FormatError, match=rf"{place[-1]}`; measure again"):
        read_machine(path)


def test_a_pipe_is_written_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_machine(machine(), tmp_path / "pipe")
        assert b'"version": 1' in os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
