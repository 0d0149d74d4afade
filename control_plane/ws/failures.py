"""What a handshake without a valid token is told: 401, or 429 if too many requests of its address had none.

`endpoint` asks for each refusal. Handshakes and REST requests count together, and a valid token is never limited.
"""

from starlette.websockets import WebSocket

from control_plane.core.errors import TooManyFailuresError
from control_plane.core.failure_limits import FailureLimits
from control_plane.ws.handshake import RefusedError

TOO_MANY = TooManyFailuresError.code


def counted(websocket: WebSocket, refused: RefusedError) -> RefusedError:
    """Return `refused`, or what stands in for it; a 401 counts as a failure of the connection's address."""
    if refused.status != 401:
        return refused
    limits: FailureLimits = websocket.app.state.failure_limits
    seconds = limits.note(websocket.client.host if websocket.client else "")
    if not seconds:
        return refused
    detail = f"Too many requests from your address had no valid token; connect with a valid one, or in {seconds} s."
    return RefusedError(429, TOO_MANY, detail, seconds)
