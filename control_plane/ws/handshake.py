"""What an agent's upgrade request must bring, checked before the socket is accepted."""

from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers

from control_plane.core.protocol import (
    HEADER_ARCHITECTURE,
    HEADER_CAPABILITIES,
    HEADER_HOSTNAME,
    HEADER_INSTANCE,
    HEADER_VERSION,
)
from control_plane.core.text import clean_header
from control_plane.core.tokens import TokenChecker, bearer_token
from control_plane.fleet.session import Identity

MAX_HOSTNAME = 253
"""The longest DNS name (RFC 1035, section 2.3.4)."""
MAX_HEADER = 64
MAX_CAPABILITIES = 256


@dataclass(frozen=True)
class RefusedError(Exception):
    """The upgrade is answered with this HTTP status and sentence."""

    status: int
    code: str
    detail: str
    retry_after_seconds: int = 0


def identify(headers: Headers, address: str, token: TokenChecker, allowed_origins: Collection[str]) -> Identity:
    """Return who the agent says it is. Raises RefusedError: 401 wrong token, 403 a browser, 400 bad headers."""
    presented = bearer_token(headers.get("authorization"))
    if presented is None or not token.matches(presented):
        raise RefusedError(
            401, "unauthorized", "Send 'Authorization: Bearer <AGENT_SECRET_TOKEN>' with this control plane's token."
        )
    origin = headers.get("origin")
    if origin is not None and origin not in allowed_origins:
        raise RefusedError(403, "origin_not_allowed", "Web pages may not connect as agents; see ALLOWED_ORIGINS.")
    hostname = clean_header(headers.get(HEADER_HOSTNAME, ""), MAX_HOSTNAME + 1)
    if not hostname or len(hostname) > MAX_HOSTNAME:
        raise RefusedError(
            400,
            "invalid_hostname",
            f"Send the agent's hostname as {HEADER_HOSTNAME}, at most {MAX_HOSTNAME} characters.",
        )
    return Identity(
        hostname=hostname,
        address=address,
        version=clean_header(headers.get(HEADER_VERSION, ""), MAX_HEADER),
        architecture=clean_header(headers.get(HEADER_ARCHITECTURE, ""), MAX_HEADER),
        instance=clean_header(headers.get(HEADER_INSTANCE, ""), MAX_HEADER),
        capabilities=frozenset(clean_header(headers.get(HEADER_CAPABILITIES, ""), MAX_CAPABILITIES).split()),
    )
