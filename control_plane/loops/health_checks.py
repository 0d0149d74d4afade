"""Health checks: each connected agent is asked in its turn how it is, and its row says what it answered."""

from control_plane.operations.context import ControlPlane
from control_plane.store.checkups import note_checkup

INTERVAL_SECONDS = 0.25
"""Of looking whose turn it is: often, so that a large fleet is asked a few at a time."""


async def run_once(plane: ControlPlane) -> None:
    """Ask those whose turn it is, and store in one change what all of them have answered."""
    await plane.health.take_turns(plane.manager.get_connected_agents())
    checkup = plane.health.take_checkup()
    if checkup is None:
        return
    try:
        await plane.store.write(note_checkup, checkup)
    except BaseException:
        plane.health.keep(checkup)
        raise
