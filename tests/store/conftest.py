"""Gives every test of the store a real one, on a file of its own; and two with a history, a short and a long one."""

from collections.abc import Iterator

import pytest

from tests.support.history import LARGE, SMALL, Probe, probe
from tests.support.store import database, store

__all__ = ["database", "store"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    with probe(tmp_path_factory.mktemp("small") / "s.db", SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    with probe(tmp_path_factory.mktemp("large") / "l.db", LARGE) as made:
        yield made
