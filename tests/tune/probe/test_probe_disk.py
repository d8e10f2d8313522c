"""A directory's measurement: what is read is what was written, nothing is merged, nothing is left, faults are notes."""

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.tier_samples import why_no_io_uring
from tiercel.tiers.block_files import BlockFiles, checksum
from tiercel.tune.probe.disk import DiskProbe, FioSide, grid, is_compared, measured, shares_of
from tiercel.tune.probe.disk_side import DiskSide, Operation, Workload
from tiercel.tune.probe.fio import FioError, fio_jobs, run_of
from tiercel.tune.probe.nameless import NamelessFile
from tiercel.tune.probe.options import FULL, QUICK, Effort

KIB, MIB = 1 << 10, 1 << 20
SMALL = Effort(block_bytes=(64 * KIB, MIB), depths=(1, 4), in_flight_bytes=8 * MIB, file_bytes=64 * MIB, with_fio=False)


def probe_of(directory: Path, *, effort: Effort = SMALL, engine: str = "auto", direct: bool = True) -> DiskProbe:
    return DiskProbe(
        directory=directory,
        place=directory,
        engine=engine,
        direct=direct,
        effort=effort,
        available_bytes=8 << 30,
        clock=time.monotonic,
    )


class RecordingFiles:
    """Real block files that remember the slots of each call."""

    calls: ClassVar[list[NDArray[np.uint32]]] = []

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._files = BlockFiles(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def read(self, slots: NDArray[np.uint32], *rest: Any) -> NDArray[np.int32]:
        self.calls.append(slots)
        return self._files.read(slots, *rest)


def test_blocks_of_one_call_never_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiercel.tune.probe.disk_side.BlockFiles", RecordingFiles)
    RecordingFiles.calls.clear()
    with DiskSide(tmp_path, num_bytes=16 * MIB) as side:
        side.run(Workload(operation="read", block_bytes=64 * KIB, depth=8), 24 * MIB)
    assert sum(map(len, RecordingFiles.calls)) == 384
    for slots in RecordingFiles.calls:
        assert (np.diff(np.sort(slots)) >= 2).all()
    assert len(np.unique(np.concatenate(RecordingFiles.calls))) == 128  # the whole half


@pytest.mark.parametrize("operation", ["read", "write", "mixed"])
@pytest.mark.parametrize("engine", ["auto", "threads"])
def test_a_run_moves_what_it_is_asked_to_and_tells_what_each_block_took(
    tmp_path: Path, operation: Operation, engine: str
) -> None:
    with DiskSide(tmp_path, num_bytes=16 * MIB, engine=engine) as side:
        run = side.run(Workload(operation=operation, block_bytes=64 * KIB, depth=8), 12 * MIB)
    assert len(run.seconds) == 192  # more than a half has: it goes round
    assert (run.seconds > 0).all()
    assert (run.seconds < 60).all()
    assert run.bytes_per_s > 0


def test_large_blocks_are_measured_whole(tmp_path: Path) -> None:
    with DiskSide(tmp_path, num_bytes=64 * MIB) as side:
        run = side.run(Workload(operation="read", block_bytes=8 * MIB, depth=2), 16 * MIB)
        assert len(run.seconds) == 2
        assert not side.fits(Workload(operation="read", block_bytes=8 * MIB, depth=4))


def test_a_read_of_other_bytes_than_were_written_is_no_measurement(tmp_path: Path) -> None:
    with DiskSide(tmp_path, num_bytes=16 * MIB) as side:
        os.pwrite(side.file.descriptor, b"\0" * 8 * MIB, 0)
        os.fsync(side.file.descriptor)
        with pytest.raises(OSError, match="other bytes came back"):
            side.run(Workload(operation="read", block_bytes=MIB, depth=1), 4 * MIB)


def test_writes_leave_the_half_alone_that_is_read(tmp_path: Path) -> None:
    with DiskSide(tmp_path, num_bytes=16 * MIB) as side:
        before = checksum(os.pread(side.file.descriptor, 8 * MIB, 0))
        os.pwrite(side.file.descriptor, b"\0" * 8 * MIB, 8 * MIB)
        side.run(Workload(operation="write", block_bytes=MIB, depth=4), 16 * MIB)
        assert checksum(os.pread(side.file.descriptor, 8 * MIB, 0)) == before
        assert checksum(os.pread(side.file.descriptor, 8 * MIB, 8 * MIB)) == before  # and write the same bytes


def test_the_file_is_written_before_anything_is_measured(tmp_path: Path) -> None:
    with DiskSide(tmp_path, num_bytes=16 * MIB) as side:
        content = np.frombuffer(os.pread(side.file.descriptor, 16 * MIB, 0), np.uint64)
    pages = content.reshape(-1, 512)[: 8 * MIB // 4096]
    assert len(np.unique(pages[:, 0])) == len(pages)


def test_a_nameless_file_is_never_seen(tmp_path: Path) -> None:
    with NamelessFile(tmp_path) as file:
        os.pwrite(file.descriptor, b"x", 0)
        assert list(tmp_path.iterdir()) == []
        assert Path(file.path).read_bytes() == b"x"


def test_where_no_nameless_file_can_be_made_its_name_goes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # opening a folder to write: EISDIR, as old kernels
    with NamelessFile(tmp_path) as file:
        assert list(tmp_path.iterdir()) == []
        files = BlockFiles([file.path], num_slots=1, slot_bytes=4096, block_bytes=4096, queue_depth=1)
        files.close()
        assert os.fstat(file.descriptor).st_size == 4096


def test_a_directory_is_measured_in_every_way_of_the_grid_and_left_as_it_was(tmp_path: Path) -> None:
    probe = probe_of(tmp_path)
    titles: list[str] = []
    found = probe.run(lambda shares: 0.1 * shares, titles.append)
    assert found is not None
    done = [
        Workload(operation=each.operation, block_bytes=each.block_bytes, depth=each.depth) for each in found.figures
    ]
    assert done == list(grid(SMALL))
    assert len(titles) == len(done)
    assert all(0 < each.latency_p50_s <= each.latency_p99_s for each in found.figures)
    assert found.engine == ("threads" if why_no_io_uring() else "io_uring")
    assert 0 < found.free_bytes <= found.capacity_bytes
    assert list(tmp_path.iterdir()) == []


def test_threads_and_the_page_cache_are_said_aloud(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, engine="threads", direct=False)
    found = probe.run(lambda shares: 0.0, lambda title: None)
    assert found is not None
    assert (found.engine, found.direct) == ("threads", False)
    assert any("threads were asked for" in note for note in probe.notes)
    assert any("turned off by the caller" in note for note in probe.notes)


def test_a_directory_that_cannot_be_written_is_a_note() -> None:
    probe = probe_of(Path("/proc/self"))
    assert probe.run(lambda shares: 0.1, lambda title: None) is None
    assert [note for note in probe.notes if note.startswith("/proc/self: not measured: ")]


def test_a_directory_without_room_is_a_note(tmp_path: Path) -> None:
    probe = probe_of(tmp_path)
    probe.available_bytes = 1 << 20
    assert probe.run(lambda shares: 0.1, lambda title: None) is None
    assert "less than 64 MiB" in probe.notes[0]
    assert list(tmp_path.iterdir()) == []


def test_depths_that_the_file_is_too_small_for_are_notes(tmp_path: Path) -> None:
    effort = Effort(
        block_bytes=(8 * MIB,), depths=(1, 8), in_flight_bytes=64 * MIB, file_bytes=64 * MIB, with_fio=False
    )
    probe = probe_of(tmp_path, effort=effort)
    found = probe.run(lambda shares: 0.0, lambda title: None)
    assert found is not None
    assert {each.depth for each in found.figures} == {1}
    assert any("too small" in note for note in probe.notes)


def test_fio_is_compared_with_at_each_sizes_largest_depth() -> None:
    compared = [workload for workload in grid(FULL) if is_compared(workload, FULL)]
    assert {(each.block_bytes, each.depth) for each in compared} == {
        (64 * KIB, 64), (256 * KIB, 64), (MIB, 64), (4 * MIB, 8), (8 * MIB, 8)
    }  # fmt: skip
    assert {each.operation for each in compared} == {"read", "write"}
    assert all(shares_of(each, FULL) > 1 for each in compared)
    assert not any(is_compared(each, QUICK) for each in grid(QUICK))


@pytest.fixture
def fake_fio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named fio; what it does is for the test to write."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    program = folder / "fio"
    program.touch(mode=0o755)
    return program


_ANSWER = (
    '{"jobs": [{"job_runtime": 500, "usr_cpu": 10.0, "sys_cpu": 10.0, '
    '"read": {"io_bytes": 1000000, "runtime": 100}, "write": {"io_bytes": 0, "runtime": 0}}]}'
)


def test_runs_of_fio_stand_beside_ours_with_their_ratio(tmp_path: Path, fake_fio: Path) -> None:
    fake_fio.write_text(f"#!/bin/sh\necho '{_ANSWER}'\n")
    with DiskSide(tmp_path, num_bytes=64 * MIB) as side:
        workload = Workload(operation="read", block_bytes=MIB, depth=4)
        figure = measured(side, workload, 0.0, time.monotonic, fio=FioSide(side))
    assert figure.fio_bytes_per_s is not None
    assert figure.fio_ratio is not None
    assert figure.fio_bytes_per_s.value == 1e7
    assert figure.fio_ratio.value == pytest.approx(figure.bytes_per_s.value / 1e7)


_IF_REGISTERED = 'case " $* " in *" --fixedbufs "*) {} ;; *) {} ;; esac'


def _in_ms(milliseconds: int) -> str:
    return f"echo '{_ANSWER.replace('100}', f'{milliseconds}}}')}'"


@pytest.mark.parametrize(("registered_ms", "plain_ms"), [(50, 100), (100, 50)])
def test_the_faster_of_fios_two_ways_is_what_we_are_held_against(
    tmp_path: Path, fake_fio: Path, registered_ms: int, plain_ms: int
) -> None:
    fake_fio.write_text("#!/bin/sh\n" + _IF_REGISTERED.format(_in_ms(registered_ms), _in_ms(plain_ms)))
    with DiskSide(tmp_path, num_bytes=64 * MIB) as side:
        fio = FioSide(side)
        for operation in ("read", "write"):
            assert fio.run(Workload(operation=operation, block_bytes=MIB, depth=4), MIB) == 2e7
    assert not fio.unregistered_reason


def test_a_fio_that_may_not_pin_its_buffers_is_held_against_and_the_reason_told(tmp_path: Path, fake_fio: Path) -> None:
    if why_no_io_uring():
        pytest.skip(why_no_io_uring())
    fake_fio.write_text("#!/bin/sh\n" + _IF_REGISTERED.format("echo 'fio: no memory' >&2; exit 1", _in_ms(100)))
    effort = Effort(block_bytes=(MIB,), depths=(4,), in_flight_bytes=8 * MIB, file_bytes=64 * MIB, with_fio=True)
    probe = probe_of(tmp_path, effort=effort)
    found = probe.run(lambda shares: 0.0, lambda title: None)
    assert found is not None
    compared = [figure for figure in found.figures if figure.operation != "mixed"]
    assert all(figure.fio_bytes_per_s is not None and figure.fio_bytes_per_s.value == 1e7 for figure in compared)
    assert any("could not be registered: fio: no memory" in note for note in probe.notes)


def test_a_fio_that_fails_is_a_note_and_the_figure_is_measured_without_it(tmp_path: Path, fake_fio: Path) -> None:
    if why_no_io_uring():
        pytest.skip(why_no_io_uring())
    fake_fio.write_text("#!/bin/sh\necho 'fio: engine io_uring not loadable' >&2\nexit 1\n")
    effort = Effort(block_bytes=(MIB,), depths=(1, 4), in_flight_bytes=8 * MIB, file_bytes=64 * MIB, with_fio=True)
    probe = probe_of(tmp_path, effort=effort)
    found = probe.run(lambda shares: 0.0, lambda title: None)
    assert found is not None
    assert len(found.figures) == 5
    if found.direct:
        assert sum("engine io_uring not loadable" in note for note in probe.notes) == 1


def test_fio_that_answers_no_json_is_an_error_of_its_own(fake_fio: Path) -> None:
    fake_fio.write_text("#!/bin/sh\necho no JSON at all\n")
    with pytest.raises(FioError, match="no JSON at all"):
        fio_jobs([])


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("#!/nonexistent/interpreter\n", "cannot be started"),
        ("#!/bin/sh\necho '[]'\n", "no JSON of jobs"),
        ("#!/bin/sh\necho '{\"jobs\": []}'\n", "without a job"),
        ('#!/bin/sh\necho \'{"jobs": [{"job_runtime": 5}]}\'\n', "lacks what is asked of it: 'read'"),
        (f"#!/bin/sh\necho '{_ANSWER.replace('1000000', '0')}'\n", "moved no bytes"),
    ],
)
def test_whatever_else_fio_does_costs_the_comparison_only(
    program: str, told: str, fake_fio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_fio.parent))  # a program that cannot be started would be looked for further on
    fake_fio.write_text(program)
    with pytest.raises(FioError, match=told):
        run_of(fio_jobs([])[0])
