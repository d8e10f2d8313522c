"""Two files side by side: what changed beyond the spread, what did not, and what only one has."""

import msgspec

from tests.helpers.machine_samples import directory, figure, gpu, machine
from tiercel.tune.probe.compare import compare
from tiercel.tune.probe.figures import named_figures, with_doubts


def test_a_machine_beside_itself_has_not_changed() -> None:
    whole = machine(gpus=(gpu(),))
    same = compare(whole, whole)
    assert len(same.figures) == len(named_figures(whole))
    assert (same.changed, same.facts, same.only_old, same.only_new) == ((), (), (), ())


def test_what_lies_within_either_spread_has_not_changed() -> None:
    old = machine(copy_bytes_per_s=figure(20e9, spread=0.2))
    assert compare(old, machine(copy_bytes_per_s=figure(21.9e9, spread=0.001))).changed == ()
    (change,) = compare(old, machine(copy_bytes_per_s=figure(22.1e9, spread=0.001))).changed
    assert change.name == "memory copy, the cache's threads"
    assert round(change.ratio, 3) == 1.105
    (slower,) = compare(old, machine(copy_bytes_per_s=figure(10e9))).changed
    assert slower.ratio == 0.5


def test_figures_of_a_directory_that_only_one_file_has_are_named() -> None:
    old, new = machine(directories=(directory("/a"),)), machine(directories=(directory("/b"),))
    found = compare(old, new)
    assert len(found.figures) == 4
    assert "/a: read 64 KiB, depth 1" in found.only_old
    assert "/b: read 64 KiB, depth 1" in found.only_new
    assert len(found.only_old) == len(found.only_new) == 8


def test_what_is_no_figure_is_told_in_words() -> None:
    slow = msgspec.structs.replace(directory(), engine="threads")
    found = compare(machine(), machine(kernel="6.2", directories=(slow,)))
    assert found.facts == ("kernel was 6.1, is 6.2", "/ssd: engine was io_uring, is threads")


def test_figures_that_are_not_to_be_trusted_are_counted_in_a_note() -> None:
    assert with_doubts(machine()) == machine()
    doubtful = with_doubts(machine(copy_bytes_per_s=figure(1e9, spread=0.2), notes=("A note.",)))
    assert doubtful.notes[0] == "A note."
    assert doubtful.notes[1].startswith("1 of 12 figures are not to be trusted")


def test_every_figure_has_a_name_of_its_own() -> None:
    names = [(each.place, each.name) for each in named_figures(machine(gpus=(gpu(), gpu())))]
    assert len(names) == len(set(names))
