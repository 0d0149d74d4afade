"""What an agent's upgrade request must bring, checked before the socket is accepted."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from starlette.datastructures import Headers

from control_plane.core.access import DEFAULT_ORGANIZATION_ID
from control_plane.core.audit import AuditEntry
from control_plane.core.protocol import (
    HEADER_ARCHITECTURE,
    HEADER_CAPABILITIES,
    HEADER_HOSTNAME,
    HEADER_INSTANCE,
    HEADER_VERSION,
    Capability,
)
from control_plane.core.text import clean_header
from control_plane.core.tokens import (
    PREFIXES,
    TokenChecker,
    TokenKind,
    bearer_token,
    digest_of,
    is_damaged,
    make_token,
)
from control_plane.fleet.session import Identity
from control_plane.operations.token_book import TokenBook
from control_plane.store.enrollment import Enrollment
from control_plane.store.tokens import KnownToken

ENROLL = "enroll_agent"
"""What the audit calls an enrolment."""
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


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Who asks to be let in, and the token of its own that it is to be given, if it came with an enrolment's."""

    identity: Identity
    new_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Credential:
    """What an agent's token says of it: its organisation, and its own hostname if it is bound to one."""

    organization_id: int
    token: KnownToken | None = None


def identify(
    headers: Headers, address: str, shared: TokenChecker | None, book: TokenBook, allowed_origins: Collection[str]
) -> Newcomer:
    """Return who the agent is by its token, and says that it is. `shared`: the agents' secret, None if that is off.

    Raises RefusedError: 401 wrong token, 403 a browser, another's hostname or an agent that cannot enrol, 400 bad
    headers.
    """
    credential = _check_token(headers, shared, book)
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
    token = credential.token
    if token is not None and is_anothers(token, hostname):
        raise RefusedError(
            403,
            "hostname_bound",
            f"This token belongs to the agent '{token.hostname}': give this host a token of its own, or set its "
            f"AGENT_HOSTNAME to {token.hostname}.",
        )
    identity = Identity(
        organization_id=credential.organization_id,
        token_id=token.id if token is not None and token.kind is TokenKind.AGENT else None,
        hostname=hostname,
        address=address,
        version=clean_header(headers.get(HEADER_VERSION, ""), MAX_HEADER),
        architecture=clean_header(headers.get(HEADER_ARCHITECTURE, ""), MAX_HEADER),
        instance=clean_header(headers.get(HEADER_INSTANCE, ""), MAX_HEADER),
        capabilities=frozenset(clean_header(headers.get(HEADER_CAPABILITIES, ""), MAX_CAPABILITIES).split()),
    )
    if token is None or token.kind is not TokenKind.ENROLLMENT:
        return Newcomer(identity)
    return _enrolling(identity, token)


def is_anothers(token: KnownToken, hostname: str) -> bool:
    """Whether a token is that of the agent of another hostname."""
    return token.kind is TokenKind.AGENT and token.hostname != hostname


def begin_audit(headers: Headers, address: str, book: TokenBook) -> AuditEntry | None:
    """Return the entry of an enrolment, None for an agent that comes without a valid token of one."""
    presented = bearer_token(headers.get("authorization")) or ""
    if not presented.startswith(PREFIXES[TokenKind.ENROLLMENT]):
        return None
    token = book.find(digest_of(presented), TokenKind.ENROLLMENT)
    if token is None:
        return None
    entry = AuditEntry(token.organization_id, token.id, token.name, "", address, "", ENROLL)
    entry.concern(f"host {clean_header(headers.get(HEADER_HOSTNAME, ''), MAX_HOSTNAME)}".rstrip())
    return entry


def _check_token(headers: Headers, shared: TokenChecker | None, book: TokenBook) -> _Credential:
    presented = bearer_token(headers.get("authorization"))
    if presented is not None:
        digest = digest_of(presented)
        if shared is not None and shared.has_digest(digest):
            return _Credential(DEFAULT_ORGANIZATION_ID)
        token = book.find(digest, TokenKind.AGENT) or book.find(digest, TokenKind.ENROLLMENT)
        if token is not None:
            return _Credential(token.organization_id, token)
    raise RefusedError(401, "unauthorized", _why_not_valid(presented, shared))


def _why_not_valid(presented: str | None, shared: TokenChecker | None) -> str:
    own = "one of its own from POST /agents/{id}/token, or an enrolment's from POST /agents/enroll"
    if presented is not None and is_damaged(presented):
        return "This agent's token is not whole: it was cut off or mistyped; give it exactly as it was shown."
    if presented is not None and presented.startswith(PREFIXES[TokenKind.API]):
        return f"This is an API token, which agents cannot use: give the agent {own}."
    if shared is None:
        return f"This agent's token is not valid, and the secret that agents share is switched off: give it {own}."
    return f"Send 'Authorization: Bearer <AGENT_SECRET_TOKEN>' with this control plane's secret, or {own}."


def _enrolling(identity: Identity, token: KnownToken) -> Newcomer:
    if Capability.ENROLL.value not in identity.capabilities:
        raise RefusedError(
            403,
            "cannot_enroll",
            "This agent cannot keep a token that it is given: make one for it with POST /agents/{id}/token and set "
            "that as its AGENT_SECRET_TOKEN.",
        )
    new_token = make_token(TokenKind.AGENT)
    enrollment = Enrollment(token.id, digest_of(new_token).hex())
    return Newcomer(replace(identity, enrollment=enrollment), new_token)
