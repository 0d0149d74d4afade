"""A replaced connection is cleaned up late: only after its successor is in. No guard is taken out here."""

import asyncio

import structlog

from control_plane.fleet.manager import ConnectionManager
from control_plane.fleet.session import AgentSession

LOOK_SECONDS = 0.02


def apply() -> None:
    """Let the end of a replaced connection wait for its successor, and log when it is done."""
    disconnect = ConnectionManager.disconnect

    async def late(self: ConnectionManager, session: AgentSession) -> bool:
        replaced = self.find_session(session.agent_id) is not session
        while replaced and self.find_session(session.agent_id) is None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(LOOK_SECONDS)
        current = await disconnect(self, session)
        if replaced:
            structlog.get_logger().info("cleaned_up_late")
        return current

    ConnectionManager.disconnect = late  # type: ignore[method-assign]
