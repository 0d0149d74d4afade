"""What an error answer looks like (RFC 9457) and which HTTP status each error class has; their OpenAPI form.

`problems.py` renders errors by it and routes declare theirs with `problem_responses`. `STATUSES` is the only
place where an error meets an HTTP status: a class without an entry has its nearest ancestor's.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from control_plane.core import errors

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[type[errors.ControlPlaneError], int] = {
    errors.ControlPlaneError: 500,
    errors.InvalidInputError: 422,
    errors.TooLargeError: 413,
    errors.UnauthorizedError: 401,
    errors.ForbiddenError: 403,
    errors.HostnameBoundError: 403,
    errors.TooManyFailuresError: 429,
    errors.OriginNotAllowedError: 403,
    errors.NotFoundError: 404,
    errors.HostNotAllowedError: 421,
    errors.ConflictError: 409,
    errors.UnavailableError: 503,
    errors.QueueFullError: 429,
    errors.StorageFullError: 507,
}

PROTOCOL_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "The request could not be read; send it again, complete and as valid HTTP."),
    404: ("route_not_found", "There is nothing at this address; /docs lists every route."),
    405: ("method_not_allowed", "This address does not take that method; /docs lists what it takes."),
    408: ("request_timeout", "The body did not arrive in time; send it again over a faster connection."),
    413: ("too_large", "The body is larger than this server takes; send a smaller one."),
    415: (
        "unsupported_media_type",
        "The body must be JSON; send it with the header 'Content-Type: application/json'.",
    ),
    422: ("invalid_input", "The request is not valid; each entry of 'fields' says what to change."),
    431: ("headers_too_large", "The request's headers are larger than this server takes; send fewer or shorter ones."),
    500: (
        "internal_error",
        "Something went wrong on our side; the request id in the X-Request-ID header finds it in the log.",
    ),
}
"""Errors of HTTP itself, which have no class of ours: status to code and sentence."""

MALFORMED_JSON = ("malformed_json", "The body is not JSON that can be read; 'fields' says where and why.")
"""Code and sentence of the other 422 of HTTP itself."""

_RFC_9110_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Python before 3.13 has the older names."""
_PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
_FASTAPI_SCHEMAS = ("HTTPValidationError", "ValidationError")


class ProblemField(BaseModel):
    """One thing that is wrong with the request."""

    field: str = Field(description="Where, as a path.", examples=["services.web.ports[0]"])
    reason: str = Field(description="Why, for people.")
    line: int | None = Field(default=None, description="1-based line, where it is known.")
    column: int | None = Field(default=None, description="1-based column, where it is known.")


class Problem(BaseModel):
    """An error, as every route answers it (RFC 9457)."""

    type: str = Field(description="Always 'about:blank': `code` tells problems apart.", examples=["about:blank"])
    title: str = Field(description="The name of the HTTP status.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="One sentence for people: what is wrong and what to do.")
    code: str = Field(description="Stable, for programs.", examples=["agent_not_found"])
    fields: list[ProblemField] = Field(default=[], description="With 422: what is wrong where.")


def status_of(kind: type[errors.ControlPlaneError]) -> int:
    """Return the HTTP status of an error class: its own entry in STATUSES or its nearest ancestor's."""
    return next(STATUSES[ancestor] for ancestor in kind.__mro__ if ancestor in STATUSES)


def all_problems() -> Iterator[tuple[int, str]]:
    """Yield the HTTP status and the code of every problem that a route can answer; some come twice."""
    classes = [errors.ControlPlaneError]
    for kind in classes:
        classes += kind.__subclasses__()
        yield status_of(kind), kind.code
    for status, (code, _) in PROTOCOL_ERRORS.items():
        yield status, code
    yield 422, MALFORMED_JSON[0]


def title_of(status: int) -> str:
    """Return the name that RFC 9110 gives an HTTP status; `Error` for one it does not know."""
    try:
        return _RFC_9110_PHRASES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_document(status: int, code: str, detail: str) -> dict[str, Any]:
    """Return the members that every problem has, in the order in which they are read best."""
    return {"type": "about:blank", "title": title_of(status), "status": status, "detail": detail, "code": code}


def problem_responses(*kinds: int | type[errors.ControlPlaneError]) -> dict[int | str, dict[str, Any]]:
    """Return a route's `responses=` for these errors, with an example of each.

    `kinds` are classes of core/errors.py, or statuses of PROTOCOL_ERRORS (400, 404, 405, 408, 413, 415,
    422, 500). What every route can answer (400, 401, 403, 408, 413, 415, 421, 422, 429, 500, 503) is
    declared by `declare_problems` and need not be named.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        if isinstance(kind, int):
            code, sentence = PROTOCOL_ERRORS[kind]
            _declare(responses, kind, code, sentence)
        else:
            sentence = (kind.__doc__ or "").partition("\n")[0]
            _declare(responses, status_of(kind), kind.code, sentence, kind.retry_after_seconds)
    return responses


def declare_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document, in place, what any route can answer; return it.

    Every operation gets 400, 421 and 500; one with parameters, a body or a token 422, in place of FastAPI's own schema,
    which is never answered; one with a body 408, 413 and 415; one behind the token 401, 403, 429 and 503 for its store.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in _FASTAPI_SCHEMAS:
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    for path in document.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict) and "responses" in operation:
                _declare_for(operation)
    return document


def _declare_for(operation: dict[str, Any]) -> None:
    declared = operation["responses"]
    if MEDIA_TYPE not in declared.get("422", {}).get("content", {MEDIA_TYPE: None}):
        del declared["422"]
    kinds: list[int | type[errors.ControlPlaneError]] = [400, 500, errors.HostNotAllowedError]
    if operation.get("parameters") or "requestBody" in operation or operation.get("security"):
        kinds.append(422)
    if "requestBody" in operation:
        kinds += [408, 413, 415]
        _declare(declared, "422", *MALFORMED_JSON)
    if operation.get("security"):
        kinds += [errors.UnauthorizedError, errors.TooManyFailuresError]
        kinds += [errors.OriginNotAllowedError, errors.StoreUnavailableError]
    for status, response in problem_responses(*kinds).items():
        for code, example in response["content"][MEDIA_TYPE]["examples"].items():
            retry_after = response.get("headers", {}).get("Retry-After", {}).get("example")
            _declare(declared, str(status), code, example["summary"], retry_after)
    operation["responses"] = dict(sorted(declared.items()))


def _declare(
    responses: dict[Any, dict[str, Any]], status: int | str, code: str, sentence: str, retry_after: int | None = None
) -> None:
    """Add one error to `responses`, unless its code is there; errors of one status share a response."""
    new: dict[str, Any] = {"description": "", "content": {MEDIA_TYPE: {"schema": _PROBLEM_REF, "examples": {}}}}
    response = responses.setdefault(status, new)
    examples = response["content"][MEDIA_TYPE]["examples"]
    if code in examples:
        return
    examples[code] = {"summary": sentence, "value": problem_document(int(status), code, sentence)}
    response["description"] = f"{response['description']} {sentence}".strip()
    headers = response.setdefault("headers", {})
    if retry_after is not None:
        headers.setdefault("Retry-After", _header("Seconds to wait before the request is sent again.", retry_after))
    if int(status) == 401:
        headers["WWW-Authenticate"] = _header("How to say who you are.", "Bearer")


def _header(description: str, example: str | int) -> dict[str, Any]:
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "schema": {"type": kind}, "example": example}
