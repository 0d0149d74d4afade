"""A server that is content with any certificate of its authority, and so lets each agent be every other one."""

from typing import Any

from control_plane.ws import endpoint

ENDPOINT: Any = endpoint


def apply() -> None:
    """Look at no agent's certificate."""
    ENDPOINT.refuse_other_certificates = lambda _websocket, _hostname: None
