"""Every error is one shape, whatever was sent and whatever broke."""

import json
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException
from structlog.testing import capture_logs

from control_plane.api.problem_types import STATUSES, status_of
from control_plane.api.problems import http_problem
from control_plane.core import errors
from tests.support.http import client_of
from tests.support.problem_app import SECRET, checked, make_app, post


class AnotherConflictError(errors.NameCollisionError):
    """A class added later, deeper in the tree."""


async def get_failing(error: Exception | None) -> httpx.Response:
    async with client_of(make_app(error)) as client:
        return await client.get("/fail")


def tree(kind: type[errors.ControlPlaneError]) -> list[type[errors.ControlPlaneError]]:
    # Classes of other tests are not part of the product's tree.
    below = [found for child in kind.__subclasses__() for found in tree(child)]
    return [found for found in [kind, *below] if found.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", tree(errors.ControlPlaneError), ids=lambda kind: kind.__name__)
async def test_each_error_of_the_tree_is_answered_with_its_own_code_and_a_status_of_its_family(
    kind: type[errors.ControlPlaneError],
) -> None:
    family = 500 if kind is errors.ControlPlaneError else status_of(kind)
    assert family != 500 or kind is errors.ControlPlaneError, "add the class, or one above it, to STATUSES"
    response = await get_failing(kind("Do something else."))
    assert checked(response, family, kind.code).detail == "Do something else."
    expected = None if kind.retry_after_seconds is None else str(kind.retry_after_seconds)
    assert response.headers.get("retry-after") == expected


def test_the_tree_that_is_walked_is_the_whole_tree() -> None:
    declared = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert set(tree(errors.ControlPlaneError)) == declared
    assert set(STATUSES) <= declared


def test_a_class_without_an_entry_has_its_nearest_ancestors_status() -> None:
    assert status_of(AnotherConflictError) == 409


async def test_retry_after_of_one_error_overrides_its_class() -> None:
    error = errors.QueueFullError("Wait.")
    error.retry_after_seconds = 7
    assert (await get_failing(error)).headers["retry-after"] == "7"


async def test_unauthorized_says_how_to_authenticate() -> None:
    response = await get_failing(errors.UnauthorizedError("Send a token."))
    assert response.headers["www-authenticate"] == "Bearer"


async def test_fields_of_an_error_are_told_with_their_position() -> None:
    fields = [errors.FieldProblem("services.web.ports[0]", "not a port", 3, 9), errors.FieldProblem("x", "odd")]
    response = await get_failing(errors.InvalidComposeFileError("Look at the fields.", fields))
    assert response.json()["fields"] == [
        {"field": "services.web.ports[0]", "reason": "not a port", "line": 3, "column": 9},
        {"field": "x", "reason": "odd"},
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "route_not_found"), ("DELETE", "/deploy", 405, "method_not_allowed")],
)
async def test_what_no_route_takes_is_a_problem_too(method: str, path: str, status: int, code: str) -> None:
    async with client_of(make_app()) as client:
        response = await client.request(method, path)
    checked(response, status, code)
    if status == 405:
        assert response.headers["allow"] == "POST"
        assert "use POST" in response.json()["detail"]


async def test_an_http_exception_keeps_its_sentence_and_headers_and_detail_is_always_text() -> None:
    response = await get_failing(HTTPException(418, "Use a kettle.", headers={"X-Kettle": "yes"}))
    assert checked(response, 418, "http_error").detail == "Use a kettle."
    assert response.headers["x-kettle"] == "yes"
    odd: Any = {"not": "text"}
    checked(await get_failing(HTTPException(400, odd)), 400, "bad_request")
    assert checked(await get_failing(HTTPException(599, "Odd status.")), 599, "http_error").title == "Error"


async def test_a_missing_field_is_named_with_its_reason() -> None:
    problem = checked(await post(b"{}"), 422, "invalid_input")
    assert problem.detail == "project_name: Field required"
    assert [(field.field, field.reason) for field in problem.fields] == [("project_name", "Field required")]


async def test_nested_and_query_fields_are_named_as_paths() -> None:
    problem = checked(await post(b'{"project_name":"a","ports":[1,"x"]}'), 422, "invalid_input")
    assert problem.fields[0].field == "ports[1]"
    async with client_of(make_app()) as client:
        problem = checked(await client.get("/agents", params={"limit": "5000"}), 422, "invalid_input")
    assert problem.detail == "limit: Input should be less than or equal to 1000"


async def test_a_validators_own_sentence_is_told_without_pydantics_prefix() -> None:
    assert (await post(b'{"project_name":"bad"}')).json()["detail"] == "project_name: Use another name"


async def test_a_thousand_mistakes_are_told_in_a_short_answer() -> None:
    body = {"project_name": 1, "ports": ["x"] * 1000}
    response = await post(json.dumps(body).encode())
    problem = checked(response, 422, "invalid_input")
    assert len(problem.fields) == 50
    assert problem.detail.endswith("; and 998 more")
    assert len(response.content) < 20_000


async def test_a_name_of_the_callers_own_is_cut_short() -> None:
    response = await post(json.dumps({"project_name": "a", "y" * 50_000: 1}).encode())
    assert checked(response, 422, "invalid_input").fields[0].field == "y" * 99 + "…"
    assert len(response.content) < 1_000


async def test_what_the_caller_sent_is_not_in_the_answer() -> None:
    body = {"project_name": {"password": SECRET}, "ports": [SECRET], "timeout_seconds": SECRET}
    response = await post(json.dumps(body).encode())
    checked(response, 422, "invalid_input")
    assert SECRET not in response.text


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_a_body_that_does_not_say_it_is_json_is_answered_with_what_to_send(content_type: str | None) -> None:
    problem = checked(await post(b'{"project_name": "a"}', content_type), 415, "unsupported_media_type")
    assert "Content-Type: application/json" in problem.detail


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.x+json"])
async def test_json_by_another_name_is_taken(content_type: str) -> None:
    assert (await post(b'{"project_name": "a"}', content_type)).status_code == 200


async def test_a_bug_is_answered_without_internals_and_logged_once_under_its_request_id() -> None:
    with capture_logs() as logged:
        response = await get_failing(RuntimeError(f"cannot open /var/{SECRET}"))
    problem = checked(response, 500, "internal_error")
    assert SECRET not in response.text
    assert response.headers["x-request-id"] in problem.detail
    assert [entry["event"] for entry in logged] == ["request_crashed"]
    assert isinstance(logged[0]["exc_info"], RuntimeError)


async def test_an_answer_that_does_not_fit_its_model_is_a_500_and_its_content_is_not_logged() -> None:
    with capture_logs() as logged:
        checked(await get_failing(None), 500, "internal_error")
    assert logged[0]["wrong"] == ["response.project_name: string_type"]
    assert SECRET not in repr(logged)


@pytest.mark.parametrize("text", ["lone \ud800 surrogate", "NUL \x00", "“quotes” and €", "x" * 100_000])
def test_any_text_can_be_told(text: str) -> None:
    fields = [errors.FieldProblem(text, text)]
    answer = http_problem(422, "invalid_input", text, fields=fields)
    told = json.loads(bytes(answer.body))
    assert told["detail"] == told["fields"][0]["field"] == text.replace("\ud800", "?")
