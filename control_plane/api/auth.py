"""Who may call the REST API: a bearer token and its role, checked before anything else of a request is looked at.

Routers behind the token are made with `protected_router`; a route says with `needs` which role it takes. Invariant:
without a valid token of that role no body is read and no dependency runs, and each request of a valid token that is
to change something leaves one entry in the audit, whatever becomes of it. `app.state.api_tokens` holds the checker
of API_TOKEN, None only with API_AUTH=none; all other tokens are in the control plane's TokenBook.
"""

from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from control_plane.api.failures import failure
from control_plane.api.json_body import StrictJsonRequest
from control_plane.api.origins import refuse_other_origins
from control_plane.api.problems import answer_for
from control_plane.api.unknown_parameters import query_names, refuse_unknown
from control_plane.core.access import DEFAULT_REACH, Actor, Reach, Role
from control_plane.core.audit import AuditEntry
from control_plane.core.errors import UnauthorizedError
from control_plane.core.tokens import PREFIXES, TokenChecker, TokenKind, bearer_token, digest_of, is_damaged
from control_plane.operations.auditing import note

ACTOR = "control_plane.actor"
"""In a request's scope once its token was found valid; `connections` looks for it, too."""
BOOTSTRAP_NAME = "API_TOKEN"
_ROLE = "x-required-role"


def needs(role: Role, **extra: Any) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that takes this role or more; reading takes a viewer without saying so."""
    return {_ROLE: role.value, **extra}


def check_token(connection: HTTPConnection) -> Actor:
    """Return who sends the request. Raises UnauthorizedError unless it carries a valid token, or none is needed;
    TooManyFailuresError in its place where the address has failed too often.

    Where none is needed nothing but the origin tells a web page from its user: raises OriginNotAllowedError.

    Checked once a request: a second call returns the same.
    """
    scope = connection.scope
    actor: Actor | None = scope.get(ACTOR)
    if actor is None:
        actor = scope[ACTOR] = _identify_or_count(connection)
        client = scope.get("client")
        actor.address = client[0] if client else ""
        actor.request_id = scope["state"]["request_id"]
    return actor


def _identify_or_count(connection: HTTPConnection) -> Actor:
    """Return who presents the token; one that is not valid counts as a failure of its address."""
    try:
        return _identify(connection)
    except UnauthorizedError as error:
        raise failure(connection, error) from None


def _identify(connection: HTTPConnection) -> Actor:
    bootstrap: TokenChecker | None = connection.app.state.api_tokens
    if bootstrap is None:
        refuse_other_origins(connection.headers)
        return Actor("anybody", Role.ROOT, DEFAULT_REACH)
    presented = bearer_token(connection.headers.get("authorization"))
    if presented is None:
        raise UnauthorizedError("Send your API token with the header 'Authorization: Bearer <API_TOKEN>'.")
    digest = digest_of(presented)
    if bootstrap.has_digest(digest):
        return Actor(BOOTSTRAP_NAME, Role.ROOT, DEFAULT_REACH)
    token = connection.app.state.control_plane.token_book.find(digest, TokenKind.API)
    if token is None:
        raise UnauthorizedError(_why_not_valid(presented))
    reach = Reach(token.organization_id, token.projects, token.labels)
    return Actor(token.name, Role(token.role), reach, token.id)


def _why_not_valid(presented: str) -> str:
    if is_damaged(presented):
        return "This API token is not whole: it was cut off or mistyped; send it exactly as it was shown."
    if presented.startswith((PREFIXES[TokenKind.AGENT], PREFIXES[TokenKind.ENROLLMENT])):
        return "This is a token for agents, which does not open the API: send an API token (POST /tokens)."
    return (
        "This API token is not valid; it may have been revoked or rotated, or have expired: ask an admin for another, "
        "or send the one that the control plane was started with (API_TOKEN)."
    )


def check_again(request: Request) -> Actor:
    """Return who sends a request whose body is there by now: that may have taken half a minute, in which tokens end.

    Raises what `check_token` does.
    """
    actor = check_token(request)
    if actor.token_id is not None:
        _identify_or_count(request)
    return actor


async def _actor(request: Request) -> Actor:
    return check_again(request)


Caller = Annotated[Actor, Depends(_actor)]
"""Who sends the request; for routes behind the token."""


class _ApiToken(HTTPBearer):
    """The security scheme that Swagger's Authorize offers; as a dependency it checks the token."""

    async def __call__(self, request: HTTPConnection) -> None:
        """Raise UnauthorizedError without a valid token."""
        check_token(request)


require_token = _ApiToken(
    scheme_name="API token",
    description="One that `POST /tokens` made, or the value of `API_TOKEN`; if that was never set, the one that the "
    "first start made and printed.",
    auto_error=False,
)
"""Dependency of every route that is not public: `dependencies=[Security(require_token)]`."""


class TokenFirstRoute(APIRoute):
    """Checks the token before FastAPI reads and parses the body, which it does ahead of all dependencies.

    It is an ASGI app of its own: FastAPI's wraps each request in two exit stacks and an exception handler more,
    which cost a deploy a tenth of its time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.role = self._role_of()
        self.action = self._action_of()
        self._answer = self.get_route_handler()
        self.app = self._serve

    def _role_of(self) -> Role:
        """Return the role that the route says it takes. ValueError for one that changes something and says none."""
        declared = self.openapi_extra = dict(self.openapi_extra or {})
        if _ROLE not in declared and self._only_reads:
            declared[_ROLE] = Role.VIEWER.value
        if _ROLE not in declared:
            raise ValueError(f"{self.path}: say with `needs` which role it takes")
        return Role(declared[_ROLE])

    def _action_of(self) -> str:
        """Return what the audit calls the route, "" for one that only reads."""
        return "" if self._only_reads else self.operation_id or self.name

    @property
    def _only_reads(self) -> bool:
        return set(self.methods or ()) <= {"GET", "HEAD"}

    def admit(self, request: Request) -> None:
        """Check the token and its role, and begin the audit. Raises UnauthorizedError, ForbiddenError."""
        actor = check_token(request)
        if self.action:
            entry = actor.begin(self.action)
            if request.scope.get("path_params"):
                entry.concern(_object_in(request.scope["path_params"]))
        actor.require(self.role)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the check, with a query and a body that are read strictly."""
        handler = super().get_route_handler()
        known = query_names(self.dependant)

        async def checked(request: Request) -> Response:
            self.admit(request)
            if request.scope["query_string"]:
                refuse_unknown(request, known)
            return await handler(StrictJsonRequest(request.scope, request.receive))

        return checked

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            async with AsyncExitStack() as stack:
                # Where FastAPI keeps what dependencies with `yield` have to undo.
                scope["fastapi_inner_astack"] = scope["fastapi_function_astack"] = stack
                response = await self._answer(request)
        except Exception as error:
            response = answer_for(request, error)
        if entry := _unwritten(request):
            await _conclude(request, entry)
        await response(scope, receive, send)


class DirectRoute(TokenFirstRoute):
    """For the hottest route, whose endpoint takes the request and reads its body itself.

    Without a query there is nothing left for FastAPI to read: `serve_plain` calls the endpoint straight.
    """

    async def serve_plain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request without a query, from outside of FastAPI; an ASGI app."""
        request = StrictJsonRequest(scope, receive)
        try:
            self.admit(request)
            response: Response = await self.endpoint(request)
        except Exception as error:
            response = answer_for(request, error)
        if entry := _unwritten(request):
            await _conclude(request, entry)
        await response(scope, receive, send)


def _unwritten(request: Request) -> AuditEntry | None:
    """Return the entry of a request that was to change something and of which nothing was written."""
    actor: Actor | None = request.scope.get(ACTOR)
    if actor is None or actor.audit is None or actor.audit.written:
        return None
    return actor.audit


async def _conclude(request: Request, entry: AuditEntry) -> None:
    """Write what became of a request before it is answered."""
    await note(request.app.state.control_plane, entry, request.scope["state"].get("problem_code"))


def _object_in(path_params: Mapping[str, Any]) -> str:
    """Return what a path is about, such as `agent 3`; an operation says more, if it comes to that."""
    kinds = {name: "project" if name == "name" else name.removesuffix("_id") for name in path_params}
    return ", ".join(f"{kinds[name]} {value}" for name, value in path_params.items())


def protected_router(**options: Any) -> APIRouter:
    """Return a router all of whose routes need the token. `options` are APIRouter's own."""
    return APIRouter(dependencies=[Security(require_token)], **{"route_class": TokenFirstRoute, **options})
