"""Acknowledgements: an agent that does not acknowledge a command holds its lane up for ten seconds, not for ever."""

from control_plane.operations.context import ControlPlane

INTERVAL_SECONDS = 1.0


async def run_once(plane: ControlPlane) -> None:
    """Let the lanes go on that have waited long enough."""
    plane.dispatcher.pass_unacknowledged()
