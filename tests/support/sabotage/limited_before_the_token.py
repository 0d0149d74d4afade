"""A server that, as many do, looks at the address before the token: one guesser behind a NAT locks out all others."""

from typing import Any

from starlette.requests import HTTPConnection

from control_plane.api import auth
from control_plane.api.failures import failure
from control_plane.core.errors import TooManyFailuresError, UnauthorizedError

AUTH: Any = auth


def apply() -> None:
    """Let every request of an address count, and refuse it from the limit on."""
    check_token = auth.check_token

    def checked(connection: HTTPConnection) -> None:
        error = failure(connection, UnauthorizedError("Wait."))
        if isinstance(error, TooManyFailuresError):
            raise error
        check_token(connection)

    AUTH.check_token = checked
