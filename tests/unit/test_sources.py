"""Compose files of waiting deploys are kept at hand, never more of them than the bound."""

import pytest

from control_plane.fleet import sources
from control_plane.fleet.sources import Sources


def test_a_file_is_at_hand_until_it_is_dropped() -> None:
    kept = Sources()
    kept.keep("1", b"services: {}")
    assert kept.find("1") == b"services: {}"
    kept.drop("1")
    kept.drop("1")
    assert kept.find("1") is None


def test_no_more_is_kept_than_there_is_room_for_and_room_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 25)
    kept = Sources()
    for job in ("1", "1", "2", "3"):
        kept.keep(job, b"ten bytes.")
    assert [kept.find(job) is not None for job in ("1", "2", "3")] == [True, True, False]
    kept.drop("1")
    kept.keep("3", b"ten bytes.")
    assert kept.find("3") == b"ten bytes."


def test_a_large_file_is_left_in_the_store() -> None:
    kept = Sources()
    kept.keep("1", b" " * (sources.MAX_FILE_BYTES + 1))
    assert kept.find("1") is None
