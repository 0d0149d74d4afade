"""The outermost layer of HTTP: request ids, security headers, allowed hosts, and an answer even when the app crashes.

`main.create_app` calls `install_edge` once. Invariant: every HTTP answer, errors of any layer included,
carries `X-Request-ID` and the headers below, and every log line of a request carries its id.
"""

import itertools
import os
import re
from collections.abc import Callable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from control_plane.api.body_limit import BodyLimitMiddleware
from control_plane.api.hosts import check_host
from control_plane.api.problem_types import PROTOCOL_ERRORS
from control_plane.api.problems import answer_for, install_problem_handlers
from control_plane.core.hosts import AllowedHosts

DEFAULT_MAX_BODY_BYTES = 1024 * 1024
DEFAULT_MAX_BODY_SECONDS = 30.0

_DEFAULT_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""For answers that do not say otherwise: JSON that no browser should run, frame or keep."""
OnAnswer = Callable[[int, str | None], None]
"""Told the status of each answer as it begins, and its problem code if it is a problem."""

_PROCESS = os.urandom(8).hex()
_NUMBERS = itertools.count()
"""Ids that nobody else has, without asking the kernel for each: that gives Python's lock away."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def install_edge(
    app: FastAPI,
    *,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    max_body_seconds: float = DEFAULT_MAX_BODY_SECONDS,
    on_answer: OnAnswer | None = None,
    hosts: AllowedHosts | None = None,
) -> None:
    """Give `app` problem answers, body limits, request ids and security headers, in the order that they need.

    Middleware added later would be outside of it, and its answers without these headers.
    """
    install_problem_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_body_bytes, max_seconds=max_body_seconds)
    app.add_middleware(EdgeMiddleware, on_answer=on_answer, hosts=hosts)


def edged(
    app: ASGIApp,
    *,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    max_body_seconds: float = DEFAULT_MAX_BODY_SECONDS,
    on_answer: OnAnswer | None = None,
    hosts: AllowedHosts | None = None,
) -> ASGIApp:
    """Return `app`, which answers its own errors, inside the same edge."""
    bounded = BodyLimitMiddleware(app, max_bytes=max_body_bytes, max_seconds=max_body_seconds)
    return EdgeMiddleware(bounded, on_answer, hosts)


class EdgeMiddleware:
    """Adds the headers; takes the caller's X-Request-ID if it is one, and leaves it in `request.state`."""

    def __init__(self, app: ASGIApp, on_answer: OnAnswer | None = None, hosts: AllowedHosts | None = None) -> None:
        self.app = app
        self.on_answer = on_answer
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; answer 500 if it raises before it answers, and let the server cut it off after."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answer_started
            if message["type"] == "http.response.start":
                answer_started = True
                _add_headers(message, request_id)
                if self.on_answer is not None:
                    self.on_answer(message["status"], _problem_code(scope, message["status"]))
            await send(message)

        bound = bind_contextvars(request_id=request_id)
        try:
            if self.hosts is not None:
                check_host(self.hosts, scope)
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if answer_started:
                raise
            await answer_for(Request(scope), error)(scope, receive, send_with_headers)
        finally:
            reset_contextvars(**bound)


def _problem_code(scope: Scope, status: int) -> str | None:
    """Return the code of the problem that is answered; `answer_for` left it, or the body's limit has only one."""
    if status < 400:
        return None
    code: str | None = scope["state"].get("problem_code")
    return code or PROTOCOL_ERRORS.get(status, ("http_error", ""))[0]


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            given: bytes = value
            return given.decode()
    return f"{_PROCESS}{next(_NUMBERS):08x}"


def _add_headers(message: Message, request_id: str) -> None:
    headers = list(message.get("headers", ()))
    present = {name for name, _ in headers}
    headers.extend(header for header in _DEFAULT_HEADERS if header[0] not in present)
    headers.append((b"x-request-id", request_id.encode()))
    message["headers"] = headers
