"""Deploys that are not valid are refused with what to change, and nothing of them is stored."""

from typing import Any

import pytest

from tests.support.app import WEB, Site
from tests.support.deploys import base64_of, refused
from tests.support.problem_app import checked

# Nothing is stored here, so one control plane does for all.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE_FILE = "either compose_file or compose_file_base64"


@pytest.mark.promise("parser bombs")
async def test_a_body_that_is_too_large_is_413(shared_site: Site) -> None:
    await refused(shared_site, 413, "too_large", {"project_name": "web", "compose_file": "#" * 1024 * 1024})


@pytest.mark.promise("parser bombs")
@pytest.mark.parametrize("field", ["compose_file", "compose_file_base64"])
async def test_a_compose_file_over_its_bound_is_413(shared_site: Site, field: str) -> None:
    text = WEB + "#" * 256 * 1024
    body = {"project_name": "web", field: base64_of(text) if field.endswith("base64") else text}
    assert "256 KiB" in (await refused(shared_site, 413, "too_large", body)).detail


@pytest.mark.promise("traversal")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "empty"),
        ("a" * 64, "at most 63"),
        ("a" * 2000, "1000"),
        ("../etc", "letters"),
        ("web\n", "letters"),
        ("web\0", "letters"),
        ("\uff57eb", "letters"),
        ("we b", "letters"),
        ("-_-", "letter or digit"),
        (7, "string"),
        (None, "string"),
    ],
)
async def test_a_name_that_no_agent_takes_is_refused(shared_site: Site, name: Any, told: str) -> None:
    problem = await refused(shared_site, 422, "invalid_input", {"project_name": name, "compose_file": WEB})
    assert problem.fields[0].field == "project_name"
    assert told in problem.fields[0].reason


async def test_an_invalid_compose_file_is_told_with_path_line_and_column(shared_site: Site) -> None:
    file = "services:\n  web:\n    image: nginx\n    ports:\n      - published: [1]\n"
    problem = await refused(shared_site, 422, "invalid_compose_file", {"project_name": "web", "compose_file": file})
    field = problem.fields[0]
    assert field.field.startswith("services.web.ports[0]")
    assert (field.line, field.column) == (5, 9)
    assert "(line 5, column 9)" in problem.detail


@pytest.mark.parametrize("file", ["", "services: {}\n", "[]\n", "a: [\n", "services:\n  web: {}\n"])
async def test_what_is_no_compose_file_is_refused(shared_site: Site, file: str) -> None:
    problem = await refused(shared_site, 422, "invalid_compose_file", {"project_name": "web", "compose_file": file})
    assert problem.fields


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({}, "body", ONE_FILE),
        ({"compose_file": WEB, "compose_file_base64": base64_of(WEB)}, "body", ONE_FILE),
        ({"compose_file_base64": ""}, "compose_file_base64", "empty"),
        ({"compose_file_base64": "no base64!"}, "compose_file_base64", "not standard base64"),
        ({"compose_file_base64": base64_of(WEB).rstrip("=")[:-1]}, "compose_file_base64", "padding"),
        ({"compose_file": WEB, "timeout_seconds": 9}, "timeout_seconds", "10"),
        ({"compose_file": WEB, "timeout_seconds": 86_401}, "timeout_seconds", "86400"),
        ({"compose_file": WEB, "timeout_seconds": 10.5}, "timeout_seconds", "integer"),
        ({"compose_file": WEB, "timeout_seconds": True}, "timeout_seconds", "integer"),
        ({"compose_file": WEB, "agent_id": 0}, "agent_id", "1"),
        ({"compose_file": WEB, "agent_id": 2**63}, "agent_id", "less than"),
        ({"compose_file": WEB, "agent_id": True}, "agent_id", "integer"),
        ({"compose_file": WEB, "agent_id": "1"}, "agent_id", "integer"),
        ({"compose_file": WEB, "when_offline": "wait"}, "when_offline", "'fail' or 'queue'"),
        ({"compose_file": WEB, "time_out": 10}, "time_out", "not permitted"),
    ],
)
async def test_a_field_that_is_not_valid_is_named_with_the_reason(
    shared_site: Site, fields: dict[str, Any], field: str, told: str
) -> None:
    problem = await refused(shared_site, 422, "invalid_input", {"project_name": "web", **fields})
    assert problem.fields[0].field == field
    assert told in problem.fields[0].reason


@pytest.mark.parametrize("wait", ["-1", "301", "nan", "inf", "soon"])
async def test_a_wait_that_is_not_valid_is_refused_before_anything_is_stored(shared_site: Site, wait: str) -> None:
    problem = await refused(shared_site, 422, "invalid_input", {"project_name": "web", "compose_file": WEB}, wait=wait)
    assert problem.fields[0].field == "wait"


@pytest.mark.promise("browsers")
@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"", None, 422, "invalid_input"),
        (b"{", "application/json", 422, "malformed_json"),
        (b"[]", "application/json", 422, "invalid_input"),
        (b'{"project_name": "web"}', "text/plain", 415, "unsupported_media_type"),
        (b"project_name=web", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
)
async def test_a_body_that_is_no_json_object_is_told_what_to_send(
    shared_site: Site, content: bytes, content_type: str | None, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    checked(await shared_site.client.post("/deploy", content=content, headers=headers), status, code)


async def test_an_agent_that_does_not_exist_is_404(shared_site: Site) -> None:
    body = {"project_name": "web", "compose_file": WEB, "agent_id": 77}
    assert "77" in (await refused(shared_site, 404, "agent_not_found", body)).detail
