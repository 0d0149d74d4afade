"""Presence: keeps `last_seen` of connected agents about right in the store, for readers after a crash."""

from control_plane.operations.context import ControlPlane
from control_plane.store import agents

INTERVAL_SECONDS = 60.0


async def run_once(plane: ControlPlane) -> None:
    """Write when each connected agent was last heard, in one change."""
    sessions = plane.manager.get_connected_agents()
    if sessions:
        await plane.store.write(agents.see, {session.agent_id: session.last_seen for session in sessions})
