"""Whoever comes last under a hostname has it: nobody asks whether the one before is alive."""

from control_plane.ws.socket import AgentSocket


def apply() -> None:
    """Take every incumbent for dead."""

    async def unanswered(_self: AgentSocket, _timeout_seconds: float) -> bool:
        return False

    AgentSocket.ping = unanswered  # type: ignore[assignment, method-assign]
