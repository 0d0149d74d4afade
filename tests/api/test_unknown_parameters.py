"""A query parameter that a route does not take is a mistake of the caller's, and told as one."""

from typing import Any

import pytest

from control_plane.api.problems import MAX_FIELDS
from tests.support.app import Site


@pytest.mark.parametrize(
    ("method", "path", "field", "reason"),
    [
        ("POST", "/deploy?wiat=300", "wiat", "is not a parameter of this route; did you mean wait?"),
        ("GET", "/jobs?projekt=web&limit=1", "projekt", "is not a parameter of this route; did you mean project?"),
        ("GET", "/events?x=1", "x", "is not a parameter of this route; it takes agent_id, cursor, kind, limit, "),
        ("POST", "/projects/web/stop?Wait=5", "Wait", "is not a parameter of this route; did you mean wait?"),
        ("GET", "/agents/1?wait=1", "wait", "is not a parameter of this route, which takes none in its query"),
        ("GET", f"/agents?{'n' * 5000}=1", "n" * 100, "is not a parameter of this route; it takes "),
        ("GET", "/jobs?wait%00=1", "wait\0", "is not a parameter of this route; it takes agent_id"),
    ],
)
async def test_it_is_named_with_what_was_meant(site: Site, method: str, path: str, field: str, reason: str) -> None:
    answer = await site.client.request(method, path, json={} if method == "POST" else None)
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_input")
    assert problem["fields"][0]["field"] == field
    assert problem["fields"][0]["reason"].startswith(reason)


async def test_of_very_many_only_some_are_told(site: Site) -> None:
    answer = await site.client.get("/jobs?" + "&".join(f"n{number}=1" for number in range(5_000)))
    assert answer.status_code == 422
    assert [field["field"] for field in answer.json()["fields"]] == [f"n{number}" for number in range(MAX_FIELDS)]


async def test_nothing_is_deployed_then(site: Site) -> None:
    await site.agent()
    body = {"project_name": "web", "compose_file": "services: {web: {image: nginx}}"}
    assert (await site.client.post("/deploy?wiat=300", json=body)).status_code == 422
    assert (await site.get("/deployments"))["deployments"] == []


async def test_strangers_are_told_of_the_token_first(site: Site) -> None:
    answer = await site.client.get("/agents?x=1", headers={"Authorization": ""})
    assert answer.status_code == 401
