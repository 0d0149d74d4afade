"""Agents are not pinged: that one is gone shows only when something is written to it and TCP gives up."""

from control_plane.ws.socket import AgentSocketProtocol


def apply() -> None:
    """Leave uvicorn's keep-alive off for agents."""
    AgentSocketProtocol.start_keepalive = lambda self: None  # type: ignore[method-assign]
