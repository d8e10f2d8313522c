"""The folders of replays: one replay at a time in each, empty at first, and gone at the end however it comes."""

import dataclasses
from pathlib import Path

import pytest

from tests.helpers.replay_samples import MODEL, random_trace, settings, setup
from tiercel import Cache, CacheConfig, ConfigError, DirectoryLockedError, ModelConfig, TierError
from tiercel.tune.replay import FOLDER, Pace, ReplaySetup, replay
from tiercel.tune.replay.setup import own_folders


def other_geometry(chosen: ReplaySetup) -> ReplaySetup:
    """A setup whose blocks have another size, and so another fingerprint."""
    return dataclasses.replace(chosen, model=dataclasses.replace(MODEL, num_layers=3))


def test_a_directory_in_use_by_another_replay_is_left_alone_whatever_either_replays(tmp_path: Path) -> None:
    chosen = setup(settings(tmp_path, host=8, disk=16))
    with own_folders(chosen.cache_config), Cache.open(chosen.cache_model, chosen.cache_config):
        held = sorted((tmp_path / FOLDER).rglob("*"))
        for second in (chosen, other_geometry(chosen)):
            with pytest.raises(DirectoryLockedError, match="in use by process"):
                replay(random_trace(1), second)
        assert sorted((tmp_path / FOLDER).rglob("*")) == held
    assert not (tmp_path / FOLDER).exists()


def test_what_a_killed_replay_of_another_geometry_left_gives_its_room_back_before_the_tiers_are_made(
    tmp_path: Path,
) -> None:
    killed = other_geometry(setup(settings(tmp_path, disk=500)))
    Cache.open(killed.cache_model, killed.cache_config).close()
    (left,) = (tmp_path / FOLDER).iterdir()

    def open_watched(model: ModelConfig, config: CacheConfig) -> Cache:
        assert not left.exists()
        return Cache.open(model, config)

    assert replay(random_trace(1), setup(settings(tmp_path, disk=16)), open_cache=open_watched).wrong_blocks == 0


def test_a_cache_that_does_not_open_leaves_no_folder(tmp_path: Path) -> None:
    def open_half(model: ModelConfig, config: CacheConfig) -> Cache:
        Cache.open(model, config).close()
        raise TierError("the device went away")

    with pytest.raises(TierError, match="went away"):
        replay(random_trace(1), setup(settings(tmp_path, disk=16)), open_cache=open_half)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pace", list(Pace))
def test_a_directory_that_cannot_be_made_is_named_with_its_setting(tmp_path: Path, pace: Pace) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=f"ssd_cache_dir = '{file}': .* name another directory"):
        replay(random_trace(1), setup(settings(file, disk=16), pace=pace))
