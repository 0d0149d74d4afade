"""Turns every error into one shape, `application/problem+json`, whatever the request held.

`install_problem_handlers` is called by `edge.install_edge`. Invariant: nothing of the request but a field's
name, cut short, and nothing of our internals is in an answer; rendering cannot fail.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from control_plane.api.json_body import BadJsonError, says_json
from control_plane.api.problem_types import (
    MALFORMED_JSON,
    MEDIA_TYPE,
    PROTOCOL_ERRORS,
    Problem,
    declare_problems,
    problem_document,
    problem_responses,
    status_of,
)
from control_plane.core.errors import ControlPlaneError, FieldProblem, InvalidInputError, UnauthorizedError

__all__ = [
    "Problem",
    "answer_for",
    "http_problem",
    "install_problem_handlers",
    "problem_responses",
]

MAX_FIELDS = 50
"""More would only repeat one mistake (a list of a million wrong items)."""
MAX_FIELDS_IN_DETAIL = 3
MAX_NAME_CHARACTERS = 100
MAX_REASON_CHARACTERS = 300

_log = structlog.get_logger(__name__)
_PARAMETER_PLACES = {"body", "query", "path", "header", "cookie"}
_PLAINER_REASONS = {
    "model_attributes_type": "Must be a JSON object",
    "model_type": "Must be a JSON object",
}
"""For those of pydantic's sentences that only its users understand, by error type."""


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error that reaches `app`'s exception handlers as a problem, and declare them in its OpenAPI.

    What no handler takes (a bug) is answered by `edge.EdgeMiddleware` with `answer_for`.
    """
    app.add_exception_handler(ControlPlaneError, _handle)
    app.add_exception_handler(HTTPException, _handle)
    app.add_exception_handler(RequestValidationError, _handle)
    undeclared = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = declare_problems(undeclared())
        return app.openapi_schema

    # FastAPI's documented way to extend its document is to replace the method.
    app.openapi = openapi  # type: ignore[method-assign]


class ProblemAnswer(Response):
    """An answer that is a problem."""

    media_type = MEDIA_TYPE
    code = ""


def answer_for(request: Request, error: Exception) -> Response:
    """Return the answer to `request` for any error; one that is not the caller's is logged, once.

    Its problem code is left in `request.state`, where the edge finds it.
    """
    answer = _answer_for(request, error)
    if isinstance(answer, ProblemAnswer):
        request.state.problem_code = answer.code
    return answer


def _answer_for(request: Request, error: Exception) -> Response:
    if isinstance(error, ControlPlaneError):
        return _control_plane_problem(error)
    if isinstance(error, RequestValidationError):
        return _validation_problem(request, error)
    if isinstance(error, HTTPException):
        return _http_exception_problem(request, error)
    return _crash_problem(request, error)


def http_problem(
    status: int,
    code: str,
    detail: str,
    *,
    fields: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> ProblemAnswer:
    """Return a problem answer. Lone surrogates in its texts become `?`, for JSON in UTF-8 cannot hold them."""
    document = problem_document(status, code, detail)
    if fields:
        document["fields"] = [_field_document(field) for field in fields]
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    answer = ProblemAnswer(content, status_code=status, headers=headers)
    answer.code = code
    return answer


async def _handle(request: Request, error: Exception) -> Response:
    return answer_for(request, error)


def _control_plane_problem(error: ControlPlaneError) -> Response:
    status = status_of(type(error))
    if status == 500:
        _log.error("request_failed", code=error.code, exc_info=error)
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    fields = error.fields if isinstance(error, InvalidInputError) else ()
    return http_problem(status, error.code, error.detail, fields=fields, headers=headers)


def _http_exception_problem(request: Request, error: HTTPException) -> Response:
    if error.status_code in {204, 304}:
        return Response(status_code=error.status_code, headers=error.headers)
    if error.status_code == 400 and isinstance(error.__cause__, (RecursionError, ValueError)):
        return _unreadable_json(_why_unreadable(error.__cause__))
    code, sentence = PROTOCOL_ERRORS.get(error.status_code, ("http_error", "The request cannot be answered."))
    headers = error.headers
    if error.status_code == 405:
        allowed = _allowed_methods(request) or [(headers or {}).get("Allow", "another")]
        headers = {"Allow": ", ".join(allowed)}
        sentence = f"This address does not take that method; use {' or '.join(allowed)}."
    elif isinstance(error.detail, str) and error.detail not in {"", _starlette_phrase(error.status_code)}:
        sentence = error.detail
    return http_problem(error.status_code, code, sentence, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """Return what any route of the address takes; Starlette tells of the first route alone."""
    methods: set[str] = set()
    for route in request.app.router.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods)


def _starlette_phrase(status: int) -> str:
    """Return the detail that Starlette gives by itself, which says nothing that a user could act on."""
    return HTTPException(status).detail


def _why_unreadable(cause: BaseException) -> str:
    """Return why a body that FastAPI answers 400 for could not be read."""
    if isinstance(cause, BadJsonError):
        return str(cause)
    if isinstance(cause, RecursionError):
        return "it nests too deeply; send fewer levels of lists and objects"
    if isinstance(cause, UnicodeDecodeError):
        return "it is not UTF-8; encode it as UTF-8"
    return "it holds a number with thousands of digits; send a smaller one"


def _unreadable_json(why: str, line: int | None = None, column: int | None = None) -> Response:
    field = FieldProblem("body", why, line, column)
    code, _ = MALFORMED_JSON
    return http_problem(422, code, f"The body is not JSON that can be read: {why}.", fields=[field])


def _validation_problem(request: Request, error: RequestValidationError) -> Response:
    if isinstance(error.__cause__, json.JSONDecodeError):
        cause = error.__cause__
        why = f"{cause.msg.removesuffix(' at')} at line {cause.lineno}, column {cause.colno}"
        return _unreadable_json(why, cause.lineno, cause.colno)
    found = error.errors()
    if any(tuple(entry["loc"]) == ("body",) for entry in found) and _has_body_that_is_not_json(request):
        code, sentence = PROTOCOL_ERRORS[415]
        return http_problem(415, code, sentence)
    fields = [_field_problem(entry) for entry in found[:MAX_FIELDS]]
    shown = [f"{field.field}: {field.reason}" for field in fields[:MAX_FIELDS_IN_DETAIL]]
    more = len(found) - len(shown)
    detail = "; ".join(shown) + (f"; and {more} more" if more else "")
    return http_problem(422, InvalidInputError.code, detail, fields=fields)


def _has_body_that_is_not_json(request: Request) -> bool:
    headers = request.headers
    return not says_json(headers) and ("transfer-encoding" in headers or headers.get("content-length", "0") != "0")


def _field_problem(entry: Mapping[str, Any]) -> FieldProblem:
    """Return one of pydantic's errors without its `input` and `ctx`, which hold what the caller sent."""
    reason = _PLAINER_REASONS.get(entry["type"]) or str(entry["msg"]).removeprefix("Value error, ")
    return FieldProblem(_field_name(entry["loc"]), _cut(reason, MAX_REASON_CHARACTERS))


def _field_name(location: Sequence[str | int]) -> str:
    parts = location[1:] if len(location) > 1 and location[0] in _PARAMETER_PLACES else location
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return _cut(name.removeprefix("."), MAX_NAME_CHARACTERS)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _field_document(field: FieldProblem) -> dict[str, Any]:
    document: dict[str, Any] = {"field": field.field, "reason": field.reason}
    if field.line is not None:
        document["line"] = field.line
    if field.column is not None:
        document["column"] = field.column
    return document


def _crash_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, ResponseValidationError):
        # Its text holds the whole answer, Compose files and logs included, which must not reach our log.
        wrong = [f"{_field_name(entry['loc'])}: {entry['type']}" for entry in error.errors()[:MAX_FIELDS]]
        _log.error("answer_does_not_fit_its_model", endpoint=error.endpoint_function, wrong=wrong)
    else:
        _log.error("request_crashed", method=request.method, exc_info=error)
    code, sentence = PROTOCOL_ERRORS[500]
    request_id = getattr(request.state, "request_id", None)
    if request_id is not None:
        sentence = f"Something went wrong on our side; the request id {request_id} finds it in the server's log."
    return http_problem(500, code, sentence)
