"""From errors to close codes: after `accept` no exception handler of the framework can answer an agent."""

from control_plane.core.protocol import CloseCode
from control_plane.operations.results import FloodError


def close_for(error: Exception) -> tuple[CloseCode, str]:
    """Return the code and the reason with which a socket is closed after `error`; reasons fit in 123 bytes."""
    if isinstance(error, FloodError):
        return CloseCode.POLICY_VIOLATION, "too many messages"
    if isinstance(error, UnicodeError):
        return CloseCode.UNSUPPORTED_DATA, "text frames only"
    return CloseCode.INTERNAL_ERROR, "internal error"
