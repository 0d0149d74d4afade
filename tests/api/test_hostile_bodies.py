"""No body, however odd, breaks the answer or reaches a route half understood."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http import client_of
from tests.support.problem_app import checked, make_app, post


async def test_malformed_json_is_told_with_line_and_column() -> None:
    problem = checked(await post(b'{\n  "project_name" "a"}'), 422, "malformed_json")
    assert problem.detail.endswith("Expecting ':' delimiter at line 2, column 18.")
    assert [(field.field, field.line, field.column) for field in problem.fields] == [("body", 2, 18)]


@pytest.mark.promise("parser bombs")
@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b'{"project_name": "\\ud800"}', "malformed_json", id="lone surrogate"),
        pytest.param(b'{"project_name": "a", "\\udfff": 1}', "malformed_json", id="lone surrogate as a name"),
        pytest.param(b'{"project_name": "a", "timeout_seconds": NaN}', "malformed_json", id="NaN"),
        pytest.param(b'{"project_name": "a", "timeout_seconds": -Infinity}', "malformed_json", id="infinity"),
        pytest.param(b'{"project_name": NaN}', "malformed_json", id="NaN as text"),
        pytest.param(b"[" * 50_000, "malformed_json", id="deep and open"),
        pytest.param(b"[" * 50_000 + b"]" * 50_000, "malformed_json", id="deep"),
        pytest.param(b'{"a":' * 50_000, "malformed_json", id="deep objects"),
        pytest.param(b'{"project_name": "a", "ports": [' + b"9" * 5_000 + b"]}", "malformed_json", id="digits"),
        pytest.param(b'{"project_name": "a", "timeout_seconds": ' + b"9" * 400 + b"}", "invalid_input", id="huge"),
        pytest.param(b'{"project_name": 1, "project_name": 2}', "malformed_json", id="duplicate keys"),
        pytest.param(b'{"project_name": "a\x00"}', "malformed_json", id="raw NUL"),
        pytest.param(b'{"\\u0000": "\\u0000"}', "invalid_input", id="escaped NUL"),
        pytest.param(b'{"project_name": "\xff\xfe"}', "malformed_json", id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", "invalid_input", id="byte order mark"),
        pytest.param(b"", "invalid_input", id="empty"),
        pytest.param(b"null", "invalid_input", id="null"),
        pytest.param(b"[]", "invalid_input", id="list"),
        pytest.param(b'"x"', "invalid_input", id="text"),
        pytest.param(b"not json", "malformed_json", id="words"),
    ],
)
async def test_no_body_breaks_the_answer(content: bytes, code: str) -> None:
    problem = checked(await post(content), 422, code)
    assert problem.fields


@pytest.mark.parametrize(
    "content", [b"[" * 50_000, b'{"project_name": "a", "ports": [' + b"9" * 5_000 + b"]}", b"{\xff}", b"{"]
)
async def test_a_route_outside_the_protected_routers_answers_unreadable_bodies_alike(content: bytes) -> None:
    async with client_of(make_app()) as client:
        response = await client.post("/loose", content=content, headers={"Content-Type": "application/json"})
    checked(response, 422, "malformed_json")


async def test_escaped_pairs_of_surrogates_are_characters() -> None:
    assert (await post(b'{"project_name": "\\ud83d\\ude80"}')).json() == {"project": "\U0001f680"}


@given(st.binary(max_size=200) | st.recursive(st.text(), st.lists).map(json.dumps).map(str.encode))
async def test_any_bytes_are_answered_with_a_valid_problem(content: bytes) -> None:
    response = await post(content)
    checked(response, 422, response.json()["code"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 50_000, "nests too deeply"),
        (b"9" * 5_000, "number with thousands of digits"),
        (b'"\xff"', "not UTF-8"),
        (b"[NaN]", "NaN is not a number in JSON"),
        (b'{"a": 1, "a": 1}', "the same name twice"),
        (b'"\\ud800"', "half of a surrogate pair"),
    ],
)
async def test_each_kind_of_unreadable_body_is_told_what_is_wrong_with_it(content: bytes, told: str) -> None:
    assert told in checked(await post(content), 422, "malformed_json").detail
