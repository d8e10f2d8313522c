"""The published surface: what `tiercel.__all__` names is a promise, and public_api.txt is its record."""

from pathlib import Path

import tiercel

RECORDED = (Path(__file__).parent / "public_api.txt").read_text(encoding="utf-8").split()


def test_the_public_names_are_the_recorded_ones() -> None:
    assert sorted(tiercel.__all__) == sorted(RECORDED), "change public_api.txt and CHANGELOG.md together with the API"


def test_every_public_name_is_there_and_listed_by_dir() -> None:
    for name in tiercel.__all__:
        assert getattr(tiercel, name) is not None
    assert set(tiercel.__all__) <= set(dir(tiercel))
