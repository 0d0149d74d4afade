"""Whoever comes first under a hostname has it, dead or alive, as long as its socket is open."""

from control_plane.ws.socket import AgentSocket


def apply() -> None:
    """Take every incumbent for alive."""

    async def answered(_self: AgentSocket, _timeout_seconds: float) -> bool:
        return True

    AgentSocket.ping = answered  # type: ignore[assignment, method-assign]
