"""An answer counts only on the connection that its command was written to."""

import json

from control_plane.core.protocol import Response
from control_plane.fleet.session import AgentSession
from control_plane.operations import results
from control_plane.operations.context import ControlPlane


def apply() -> None:
    """Drop answers for what was written to another connection."""
    written: dict[str, str] = {}
    send, receive = AgentSession.send, results.receive

    async def noting_send(self: AgentSession, text: str) -> bool:
        written[json.loads(text)["id"]] = self.connection_id
        return await send(self, text)

    def binding_receive(plane: ControlPlane, session: AgentSession, response: Response) -> None:
        if written.get(response.job_id) == session.connection_id:
            receive(plane, session, response)

    AgentSession.send = noting_send  # type: ignore[method-assign]
    results.receive = binding_receive
