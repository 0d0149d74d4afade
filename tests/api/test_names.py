"""Project names are no paths and no two of one agent are the same to Compose, whichever way they come in."""

import asyncio
from typing import Any

import pytest

from control_plane.core.compose import read
from control_plane.operations import deploying
from tests.support.app import API_TOKEN, WEB, Site
from tests.support.go_agent import GoAgent
from tests.support.http import untidied

ENCODED = [
    "..%2f..%2fetc", "%2e%2e", "..", ".", "%2e", "..%5cetc", "web%0a", "web%0d%0a", "%0aweb", "web%00", "%00", "%20web",
    "%ef%bd%97eb", "w%c3%a9b", "web%2f", "web%252f", "%ff", "a" * 64, "_", "-_-", "web;ls", "$(id)", "web%e2%80%a8",
    "%c0%ae%c0%ae", "~", "*", "web%3fx",
]  # fmt: skip
FOLDED = ("Web", "web", "_web", "-WEB", "__-wEb")


@pytest.mark.promise("traversal")
@pytest.mark.parametrize("encoded", ENCODED)
async def test_no_name_in_a_path_reaches_anything(site: Site, agent: GoAgent, encoded: str) -> None:
    for method, what in (("GET", ""), ("GET", "/status"), ("POST", "/stop")):
        headers = {"Authorization": f"Bearer {API_TOKEN}"}
        status, problem = await untidied(site.url, method, f"/projects/{encoded}{what}", headers)
        assert status in {404, 422}, problem
        assert problem["code"] in {"route_not_found", "invalid_input"}
    assert not agent.commands


@pytest.mark.promise("traversal")
async def test_of_names_that_compose_folds_together_an_agent_gets_one_however_they_race(
    site: Site, agent: GoAgent
) -> None:
    await check_race(site, agent)


@pytest.mark.control("traversal")
async def test_names_that_nobody_folds_would_be_found_to_share_an_agent(
    site: Site, agent: GoAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploying, "folded_name", lambda name: name)
    with pytest.raises(AssertionError, match="share an agent"):
        await check_race(site, agent)


@pytest.mark.promise("traversal")
@pytest.mark.parametrize("name", ["other", "../other", "shop/..x", "\uff53hop", "${OTHER:-other}"])
async def test_a_file_that_names_another_project_is_refused(site: Site, agent: GoAgent, name: str) -> None:
    await check_name_in_file(site, agent, name)


@pytest.mark.control("traversal")
async def test_a_name_in_the_file_that_nobody_compares_would_be_found(
    site: Site, agent: GoAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_name_problems", lambda *_: [])
    with pytest.raises(AssertionError):
        await check_name_in_file(site, agent, "other")


async def check_race(site: Site, agent: GoAgent) -> None:
    """Assert that of many deploys at once, under names that are one to Compose, those of one name are taken."""
    bodies = [{"project_name": name, "compose_file": WEB} for _ in range(8) for name in FOLDED]
    answers = await asyncio.gather(*(site.client.post("/deploy", json=body, params={"wait": 30}) for body in bodies))
    taken = {body["project_name"] for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 200}
    assert len(taken) == 1, f"{sorted(taken)} share an agent"
    for body, answer in zip(bodies, answers, strict=True):
        if body["project_name"] not in taken:
            assert (answer.status_code, answer.json()["code"]) == (409, "name_collision")
    assert {command.payload["project_name"] for command in agent.commands} == taken


async def check_name_in_file(site: Site, agent: GoAgent, name: str) -> None:
    """Assert that a file with this `name:` is refused for the project `shop`, on its line."""
    body: dict[str, Any] = {"project_name": "shop", "compose_file": f'{WEB}name: "{name}"\n'}
    response = await site.client.post("/deploy", json=body)
    assert response.status_code == 422, response.text
    assert [field["field"] for field in response.json()["fields"]] == ["name"]
    assert not agent.commands
