"""What a request without a valid token is told: what to send, or to wait, if too many of its address had none.

`auth.check_token` asks once it has seen that the token is not valid: whoever has a valid one is never limited.
"""

from starlette.requests import HTTPConnection

from control_plane.core.errors import ControlPlaneError, TooManyFailuresError, UnauthorizedError
from control_plane.core.failure_limits import FailureLimits


def failure(connection: HTTPConnection, told: UnauthorizedError) -> ControlPlaneError:
    """Return `told`, or the error that stands in for it; count the failure of the connection's address."""
    limits: FailureLimits = connection.app.state.failure_limits
    seconds = limits.note(connection.client.host if connection.client else "")
    if not seconds:
        return told
    error = TooManyFailuresError(
        f"Too many requests from your address had no valid token; send a valid one, or try again in {seconds} s."
    )
    error.retry_after_seconds = seconds
    return error
