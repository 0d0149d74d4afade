"""Who may call the REST API: a bearer token, checked before anything else of a request is looked at.

Routers behind the token are made with `protected_router`. Invariant: without a valid token no body is read
and no dependency runs. `app.state.api_tokens` holds the TokenChecker, None only with API_AUTH=none.
"""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from control_plane.api.json_body import StrictJsonRequest
from control_plane.api.origins import refuse_other_origins
from control_plane.api.problems import answer_for
from control_plane.api.unknown_parameters import query_names, refuse_unknown
from control_plane.core.errors import UnauthorizedError
from control_plane.core.tokens import TokenChecker, bearer_token

_CHECKED = "control_plane.token_checked"


def check_token(connection: HTTPConnection) -> None:
    """Return when the request carries a valid token, or none is needed. Raises UnauthorizedError.

    Where none is needed nothing but the origin tells a web page from its user: raises OriginNotAllowedError.

    Checked once a request: a second call returns at once.
    """
    scope = connection.scope
    if _CHECKED in scope:
        return
    tokens: TokenChecker | None = connection.app.state.api_tokens
    if tokens is not None:
        presented = bearer_token(connection.headers.get("authorization"))
        if presented is None:
            raise UnauthorizedError("Send your API token with the header 'Authorization: Bearer <API_TOKEN>'.")
        if not tokens.matches(presented):
            raise UnauthorizedError(
                "This API token is not valid; send the one that the control plane was started with (API_TOKEN)."
            )
    else:
        refuse_other_origins(connection.headers)
    scope[_CHECKED] = True


class _ApiToken(HTTPBearer):
    """The security scheme that Swagger's Authorize offers; as a dependency it checks the token."""

    async def __call__(self, request: HTTPConnection) -> None:
        """Raise UnauthorizedError without a valid token."""
        check_token(request)


require_token = _ApiToken(
    scheme_name="API token",
    description="The value of `API_TOKEN`; if it was never set, the one that the first start made and printed.",
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
        self._answer = self.get_route_handler()
        self.app = self._serve

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the check, with a query and a body that are read strictly."""
        handler = super().get_route_handler()
        known = query_names(self.dependant)

        async def checked(request: Request) -> Response:
            check_token(request)
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
        await response(scope, receive, send)


class DirectRoute(TokenFirstRoute):
    """For the hottest route, whose endpoint takes the request and reads its body itself.

    Without a query there is nothing left for FastAPI to read: `serve_plain` calls the endpoint straight.
    """

    async def serve_plain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request without a query, from outside of FastAPI; an ASGI app."""
        request = StrictJsonRequest(scope, receive)
        try:
            check_token(request)
            response: Response = await self.endpoint(request)
        except Exception as error:
            response = answer_for(request, error)
        await response(scope, receive, send)


def protected_router(**options: Any) -> APIRouter:
    """Return a router all of whose routes need the token. `options` are APIRouter's own."""
    return APIRouter(dependencies=[Security(require_token)], **{"route_class": TokenFirstRoute, **options})
