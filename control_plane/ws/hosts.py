"""Which Host an agent's handshake may ask for; `endpoint` has it checked first."""

from starlette.websockets import WebSocket

from control_plane.core.errors import HostNotAllowedError
from control_plane.core.hosts import AllowedHosts
from control_plane.ws.handshake import RefusedError


def refuse_other_hosts(websocket: WebSocket) -> None:
    """Return when the handshake's Host is allowed. Raises RefusedError."""
    hosts: AllowedHosts | None = websocket.app.state.allowed_hosts
    asked = [value for name, value in websocket.scope["headers"] if name == b"host"]
    if hosts is not None and not hosts.allow(asked):
        raise RefusedError(
            421,
            HostNotAllowedError.code,
            "The host that this agent dials is no name of this control plane: dial one that is, or have this one added "
            "to its ALLOWED_HOSTS.",
        )
