"""Every agent is taken for one that answers a known job id without running it again; installed agents do not."""

from control_plane.fleet.session import AgentSession


def apply() -> None:
    """Send a command again to agents that may still be running it."""
    AgentSession.can = lambda self, capability: True  # type: ignore[method-assign]
