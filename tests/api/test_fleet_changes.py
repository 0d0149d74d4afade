"""What operators change of agents: labels, cordons, forgetting; and that a restart keeps all of it."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from control_plane.commands.check import check
from control_plane.store.inspection import find_contradictions
from tests.support.app import AGENT_TOKEN, Site, running_site
from tests.support.go_agent import GoAgent
from tests.support.tenants import made, organization, tenant


async def change(site: Site, agent_id: int, **body: Any) -> Any:
    response = await site.client.patch(f"/agents/{agent_id}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def refused(site: Site, method: str, path: str, body: Any = None) -> tuple[int, str]:
    response = await site.client.request(method, path, json=body)
    assert response.is_error, response.text
    return response.status_code, response.json()["code"]


async def hostnames(site: Site, *labels: str) -> list[str]:
    return [row["hostname"] for row in (await site.get("/agents", label=list(labels)))["agents"]]


async def test_labels_are_merged_and_null_takes_one_away(site: Site, agent: GoAgent) -> None:
    steps = [
        ({"env": "prod", "rack": "1"}, {"env": "prod", "rack": "1"}),
        ({}, {"env": "prod", "rack": "1"}),
        ({"env": "dev", "disk": "ssd"}, {"disk": "ssd", "env": "dev", "rack": "1"}),
        ({"rack": None, "nowhere": None}, {"disk": "ssd", "env": "dev"}),
        ({"env": None, "disk": None}, {}),
    ]
    for labels, expected in steps:
        assert (await change(site, 1, labels=labels))["labels"] == expected
        assert (await site.get("/agents/1"))["labels"] == expected


async def test_labels_and_the_cordon_are_changed_apart_and_together(site: Site, agent: GoAgent) -> None:
    assert (await change(site, 1, cordoned=True))["labels"] == {}
    assert (await change(site, 1, labels={"a": "b"}))["cordoned"] is True
    both = await change(site, 1, labels={"a": None}, cordoned=False)
    assert (both["labels"], both["cordoned"]) == ({}, False)


async def test_an_agent_has_at_most_fifty_labels_and_a_change_too_many_changes_nothing(
    site: Site, agent: GoAgent
) -> None:
    full = {f"k{number}": "v" for number in range(50)}
    await change(site, 1, labels=full)
    assert await refused(site, "PATCH", "/agents/1", {"labels": {"k50": "v", "k1": "w"}}) == (422, "invalid_input")
    assert (await site.get("/agents/1"))["labels"] == full
    swapped = (await change(site, 1, labels={"k0": None, "k50": "v"}))["labels"]
    assert len(swapped) == 50
    assert "k50" in swapped


@pytest.mark.parametrize(
    "body",
    [
        {}, {"labels": None}, {"labels": {"": "a"}}, {"labels": {"a": ""}}, {"labels": {"a b": "c"}}, {"labels": []},
        {"labels": {"a": "b" * 64}}, {"labels": {"a": 1}}, {"cordoned": "yes"}, {"cordoned": 1}, {"hostname": "mine"},
        {"labels": {f"k{number}": "v" for number in range(51)}},
    ],
    ids=lambda body: str(body)[:40],
)  # fmt: skip
async def test_what_is_no_change_is_refused(site: Site, agent: GoAgent, body: Any) -> None:
    assert await refused(site, "PATCH", "/agents/1", body) == (422, "invalid_input")
    row = await site.get("/agents/1")
    assert (row["labels"], row["cordoned"]) == ({}, False)


async def test_agents_are_found_by_all_of_the_labels_that_are_asked_for(site: Site) -> None:
    for hostname, labels in (("a", {"env": "prod", "rack": "1"}), ("b", {"env": "prod"}), ("c", {"env": "dev"})):
        agent = await site.agent(hostname)
        await change(site, await site.id_of(agent), labels=labels)
    assert await hostnames(site) == ["a", "b", "c"]
    assert await hostnames(site, "env=prod") == ["a", "b"]
    assert await hostnames(site, "env=prod", "rack=1") == ["a"]
    assert await hostnames(site, "env=prod", "env=dev") == []
    assert (await site.get("/agents", label="env=prod", limit=1))["total"] == 2
    for wrong in ("env", "env=", "=prod", "a=b=c", "env=pr od"):
        assert (await site.client.get("/agents", params={"label": wrong})).status_code == 422


async def test_a_cordoned_agent_gets_no_new_project_and_keeps_those_it_has(site: Site, agent: GoAgent) -> None:
    await site.deploy("old")
    other = await site.agent("host-2")
    for number in range(2):
        await site.deploy(f"filler-{number}", agent_id=await site.id_of(other))
    await change(site, 1, cordoned=True)
    assert (await site.deploy("new"))["agent_id"] == 2
    assert (await site.deploy("old"))["agent_id"] == 1
    assert (await site.deploy("named", agent_id=1))["agent_id"] == 1
    await change(site, 2, cordoned=True)
    body = {"project_name": "newer", "compose_file": "services: {web: {image: nginx}}"}
    assert await refused(site, "POST", "/deploy", body) == (503, "no_agents")
    await change(site, 1, cordoned=False)
    assert (await site.deploy("newer"))["agent_id"] == 1


async def test_only_an_agent_that_is_offline_can_be_forgotten(site: Site, agent: GoAgent) -> None:
    assert await refused(site, "DELETE", "/agents/1") == (409, "agent_connected")
    assert await refused(site, "DELETE", "/agents/4242") == (404, "agent_not_found")
    await site.unplug(agent)
    assert (await site.client.delete("/agents/1")).status_code == 204
    assert await refused(site, "DELETE", "/agents/1") == (404, "agent_not_found")


async def test_whoever_waits_for_a_job_of_a_forgotten_agent_is_told_at_once(site: Site, agent: GoAgent) -> None:
    await site.deploy("ran")
    agent.hold("web")
    waiting = asyncio.create_task(site.deploy("web", wait=60))
    await agent.started(2)
    await site.unplug(agent)
    late = await site.deploy("late", agent_id=1, when_offline="queue", wait=0)
    following = asyncio.create_task(site.get(f"/jobs/{late['job_id']}", wait=60))
    await site.get(f"/jobs/{late['job_id']}")
    async with asyncio.timeout(4):  # sooner than anybody would look again
        assert (await site.client.delete("/agents/1")).status_code == 204
        answers = [await waiting, await following]
    for answer in answers:
        assert (answer["status"], answer["reason"]) == ("failed", "agent_lost")
        assert "taken from the fleet" in answer["error"]


async def test_a_forgotten_agent_is_nowhere_and_its_history_is_there(
    site: Site, agent: GoAgent, tmp_path: Path
) -> None:
    await site.deploy("web")
    await site.unplug(agent)
    await site.deploy("late", agent_id=1, when_offline="queue", wait=0)
    assert (await site.client.delete("/agents/1")).status_code == 204
    assert await hostnames(site) == []
    for method, path in (
        ("GET", "/agents/1"), ("PATCH", "/agents/1"), ("POST", "/agents/1/token"), ("DELETE", "/agents/1/token"),
        ("POST", "/agents/1/health-check"), ("GET", "/projects/web"), ("POST", "/projects/web/stop"),
    ):  # fmt: skip
        status, code = await refused(site, method, path, {"cordoned": True} if method == "PATCH" else None)
        assert (status, code) in {(404, "agent_not_found"), (404, "project_not_found")}, path
    assert (await site.get("/projects"))["projects"] == []
    states = [(row["project_name"], row["status"]) for row in (await site.get("/deployments"))["deployments"]]
    assert states == [("late", "failed"), ("web", "stopped")]
    for path, rows in (("/deployments", "deployments"), ("/jobs", "jobs"), ("/events", "events")):
        assert (await site.get(path, project="web", agent_id=1))[rows], path
    with closing(sqlite3.connect(tmp_path / "control_plane.db")) as db:
        assert find_contradictions(db) == []
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_a_host_that_returns_is_another_agent(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    await change(site, 1, labels={"env": "prod"}, cordoned=True)
    await site.unplug(agent)
    assert (await site.client.delete("/agents/1")).status_code == 204
    agent.plug_in()
    await agent.connected(2)
    row = (await site.get("/agents"))["agents"][0]
    assert (row["id"], row["labels"], row["cordoned"], row["bound"]) == (2, {}, False, False)
    assert (await site.deploy("web"))["agent_id"] == 2
    assert (await site.get("/deployments/1"))["agent_id"] == 1


async def test_a_restart_keeps_tokens_organisations_labels_cordons_and_bound_hostnames(
    tmp_path: Path, migrated_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "control_plane.db"
    async with running_site(database, migrated=migrated_database) as site:
        other = await organization(site, "other")
        caller = await tenant(site, "viewer", projects=["shop-*"])
        theirs, revoked = await tenant(site, "admin", organization_id=other), await tenant(site, "viewer")
        await site.client.delete(f"/tokens/{revoked.token_id}")
        rotated = await site.post(f"/tokens/{caller.token_id}/rotate", {"overlap_seconds": 3600})
        agent = await site.agent("bound")
        own = (await made(site.client, f"/agents/{await site.id_of(agent)}/token", {}))["token"]
        await change(site, 1, labels={"env": "prod"}, cordoned=True)
        gone = await site.offline_agent("gone")
        await site.client.delete(f"/agents/{await site.id_of(gone)}")
        before = (await site.get("/tokens"))["tokens"]
    async with running_site(database) as site:
        assert [row["id"] for row in (await site.get("/tokens"))["tokens"]] == [row["id"] for row in before]
        for token, expected in (
            (caller.token, 200), (rotated["token"], 200), (theirs.token, 200), (revoked.token, 401),
        ):  # fmt: skip
            headers = {"Authorization": f"Bearer {token}"}
            assert (await site.client.get("/me", headers=headers)).status_code == expected
        [row] = (await site.get("/agents"))["agents"]
        assert (row["labels"], row["cordoned"], row["bound"], row["status"]) == ({"env": "prod"}, True, True, "offline")
        stranger = GoAgent(site.url.replace("http", "ws") + "/ws", AGENT_TOKEN, "bound")
        await site.agents.enter_async_context(stranger)
        assert await stranger.refused() == 403
        await site.agent("bound", own)
        assert [row["name"] for row in (await site.get("/organizations"))["organizations"]] == ["default", "other"]
    assert check(database, None), capsys.readouterr().out
