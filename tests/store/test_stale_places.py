"""What operations make of a place that has changed since they read it."""

from types import SimpleNamespace
from typing import Any

import pytest

from control_plane.core.errors import NameCollisionError
from control_plane.operations.placing import _check_name
from control_plane.store import placements
from control_plane.store.store import Store
from tests.support.access import REACH, ROOT
from tests.support.store import add_agent, deploy


async def test_a_project_that_is_deployed_again_meanwhile_does_not_collide_with_itself(store: Store) -> None:
    plane: Any = SimpleNamespace(store=store)
    await add_agent(store)
    await deploy(store, "web")
    [place] = await store.read(placements.find_places, REACH, "web")
    place.released = True  # as it was read, before that deploy
    await _check_name(plane, ROOT, place)
    place.project_name = "Web"
    with pytest.raises(NameCollisionError):
        await _check_name(plane, ROOT, place)
