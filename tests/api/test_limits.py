"""Tokens that are limited to projects or labels: what they reach works, and nothing tells of the rest."""

import asyncio
from typing import Any

import pytest

from tests.support.app import WEB, Site
from tests.support.go_agent import GoAgent
from tests.support.tenants import Tenant, organization, tenant

STAGING = {"env": "staging"}


async def labelled(site: Site, hostname: str, **labels: str) -> tuple[GoAgent, int]:
    """Return a connected agent with these labels, and its id."""
    agent = await site.agent(hostname)
    agent_id = await site.id_of(agent)
    await label(site, agent_id, **labels)
    return agent, agent_id


async def label(site: Site, agent_id: int, **labels: str | None) -> None:
    assert (await site.client.patch(f"/agents/{agent_id}", json={"labels": labels})).status_code == 200


async def deploys(
    caller: Tenant, project: str = "web", *, key: str | None = None, wait: float = 20, **more: Any
) -> Any:
    """Return the JSON of whatever a deploy is answered."""
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"project_name": project, "compose_file": WEB, **more}
    return (await caller.client.post("/deploy", json=body, params={"wait": 20}, headers=headers)).json()


async def test_a_deploy_never_lands_outside_of_the_labels(site: Site) -> None:
    caller = await tenant(site, "deployer", labels=STAGING)
    prod, prod_id = await labelled(site, "prod", env="prod")
    bare, bare_id = await labelled(site, "bare")
    await site.deploy("web", agent_id=prod_id)
    for when_offline in ("fail", "queue"):
        assert (await deploys(caller, when_offline=when_offline))["code"] == "no_agents"
    staging, staging_id = await labelled(site, "staging", env="staging", rack="1")
    for number in range(3):  # it is the one with the most deployments by now
        await site.deploy(f"filler-{number}", agent_id=staging_id)
    for project in ("web", "new-1", "new-2"):  # `web` is on prod already
        assert (await deploys(caller, project))["agent_id"] == staging_id
    for agent_id in (prod_id, bare_id):
        assert (await deploys(caller, agent_id=agent_id))["code"] == "agent_not_found"
    await label(site, staging_id, env="prod")
    assert (await deploys(caller, "new-1"))["code"] == "no_agents"
    assert (len(prod.executions), len(bare.executions), len(staging.executions)) == (1, 0, 6)


async def test_all_labels_of_a_token_must_be_there_and_more_may_be(site: Site) -> None:
    caller = await tenant(site, "viewer", labels={"env": "prod", "rack": "1"})
    for number, labels in enumerate([{"env": "prod"}, {"rack": "1"}, {"env": "prod", "rack": "2"}, {"ENV": "prod"}]):
        await labelled(site, f"other-{number}", **labels)
    _, agent_id = await labelled(site, "both", env="prod", rack="1", disk="ssd")
    page = await caller.get("/agents")
    assert ([row["id"] for row in page["agents"]], page["total"]) == ([agent_id], 1)
    assert (await caller.get("/agents", label="env=staging"))["total"] == 0


async def test_stop_and_status_without_an_agent_mean_the_one_within_reach(site: Site) -> None:
    caller = await tenant(site, "deployer", labels=STAGING)
    prod, prod_id = await labelled(site, "prod", env="prod")
    _, staging_id = await labelled(site, "staging", env="staging")
    for agent_id in (staging_id, prod_id):
        await site.deploy("web", agent_id=agent_id)
    await site.deploy("only-prod", agent_id=prod_id)
    status = await caller.get("/projects/web/status", wait=20)
    assert (await caller.get(f"/jobs/{status['job_id']}"))["agent_id"] == staging_id
    for method, path, params in (("GET", "status", {"agent_id": prod_id}), ("POST", "stop", {})):
        body = {"agent_id": prod_id} if method == "POST" else None
        answer = await caller.client.request(method, f"/projects/web/{path}", params=params, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "project_not_found")
        for missing in ("only-prod", "nowhere"):
            assert await caller.refused(method, f"/projects/{missing}/{path}") == (404, "project_not_found")
    stopped = await caller.does("POST", "/projects/web/stop", wait=20)
    assert (await caller.get(f"/jobs/{stopped['job_id']}"))["agent_id"] == staging_id
    assert [run.type for run in prod.executions] == ["DEPLOY_COMPOSE", "DEPLOY_COMPOSE"]


async def test_pages_and_totals_hold_what_the_projects_of_a_token_are(site: Site, agent: GoAgent) -> None:
    caller = await tenant(site, "viewer", projects=["shop-*", "W?b"])
    for project in ("aaa", "Shop-1", "shop-2", "shop", "shop_3", "wEb", "weeb", "zzz"):
        await site.deploy(project)
    seen = {"Shop-1", "shop-2", "wEb"}
    for path, rows in (("/deployments", "deployments"), ("/jobs", "jobs"), ("/projects", "projects")):
        found, cursor = [], None
        while True:
            page = await caller.get(path, limit=1, **({"cursor": cursor} if cursor else {}))
            found += [row["project_name"] for row in page[rows]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            assert len(page[rows]) == 1
        assert (set(found), len(found)) == (seen, 3), path
    events = (await caller.get("/events", limit=1000))["events"]
    assert {event["project_name"] for event in events} == seen
    assert not [name for name in ("aaa", "weeb", "shop_3", "zzz") if name in str(events)]


async def test_a_project_that_is_not_the_tokens_is_forbidden_to_change_and_missing_to_read(
    site: Site, agent: GoAgent
) -> None:
    caller = await tenant(site, "deployer", projects=["shop-*"])
    await site.deploy("web")
    assert (await deploys(caller, "web"))["code"] == "not_allowed"
    assert await caller.refused("POST", "/projects/web/stop") == (403, "not_allowed")
    for path in ("/projects/web", "/projects/web/status", "/deployments/1", "/deployments/1/compose"):
        assert (await caller.refused("GET", path))[0] == 404
    assert (await deploys(caller, "shop-1"))["status"] == "completed"
    assert (await caller.get("/projects/shop-1/status", wait=20))["status"] == "completed"
    assert (await caller.does("POST", "/projects/shop-1/stop", wait=20))["status"] == "completed"
    assert len(agent.executions) == 4


@pytest.mark.parametrize("released", [False, True])
async def test_a_collision_names_no_project_that_the_token_does_not_reach(
    site: Site, agent: GoAgent, released: bool
) -> None:
    caller = await tenant(site, "deployer", projects=["web*"])
    if released:
        await deploys(caller, "web")
        await caller.does("POST", "/projects/web/stop", wait=20)
    await site.deploy("_WEB")
    if released:
        answer = await caller.client.post("/projects/web/stop")
    else:
        answer = await caller.client.post("/deploy", json={"project_name": "web", "compose_file": WEB})
    assert (answer.status_code, answer.json()["code"]) == (409, "name_collision")
    assert "_WEB" not in answer.text
    assert "another project" in answer.json()["detail"]


@pytest.mark.parametrize("limits", [{"labels": STAGING}, {"projects": ["web"]}], ids=str)
async def test_a_key_of_other_limits_is_another_key(site: Site, limits: dict[str, Any]) -> None:
    await labelled(site, "prod", env="prod")
    everybody, limited = await tenant(site, "deployer"), await tenant(site, "deployer", **limits)
    first = await deploys(everybody, key="pipeline-1")
    _, staging_id = await labelled(site, "staging", env="staging")
    second = await deploys(limited, key="pipeline-1")
    assert second["job_id"] != first["job_id"]
    again = await deploys(limited, key="pipeline-1")
    assert again["job_id"] == second["job_id"]
    assert second["agent_id"] == (staging_id if "labels" in limits else first["agent_id"])
    twin = await tenant(site, "deployer", **limits)
    assert (await deploys(twin, key="pipeline-1"))["job_id"] == second["job_id"]
    assert (await deploys(everybody, key="pipeline-1"))["job_id"] == first["job_id"]


async def test_a_key_of_another_organisation_is_another_key(site: Site, agent: GoAgent) -> None:
    other = await tenant(site, "deployer", organization_id=await organization(site, "other"))
    first = await deploys(await tenant(site, "deployer"), key="pipeline-1")
    assert first["status"] == "completed"
    assert (await deploys(other, key="pipeline-1"))["code"] == "no_agents"


async def test_whoever_waits_for_a_deploy_of_its_own_is_told_its_end_when_the_agent_lost_the_label(site: Site) -> None:
    caller = await tenant(site, "deployer", labels=STAGING)
    agent, agent_id = await labelled(site, "staging", env="staging")
    await deploys(caller, "status-of")
    agent.hold("web")
    deploying = asyncio.create_task(deploys(caller))
    await agent.started(2)
    job_id = agent.executions[-1].job_id
    following = asyncio.create_task(caller.get(f"/jobs/{job_id}", wait=20))
    await caller.get(f"/jobs/{job_id}")
    await label(site, agent_id, env=None)
    agent.release("web")
    assert (await deploying)["status"] == "completed"
    assert (await following)["status"] == "completed"
    assert await caller.refused("GET", f"/jobs/{job_id}") == (404, "job_not_found")


async def test_a_token_that_is_limited_to_projects_may_ask_an_agent_how_it_is(site: Site, agent: GoAgent) -> None:
    caller = await tenant(site, "operator", projects=["shop-*"])
    answer = await caller.does("POST", f"/agents/{await site.id_of(agent)}/health-check", wait=20)
    assert answer["status"] == "completed"


async def test_a_question_that_is_under_way_is_shared_by_those_who_reach_its_agent_alone(site: Site) -> None:
    other = await tenant(site, "admin", organization_id=await organization(site, "other"))
    limited = await tenant(site, "viewer", labels=STAGING)
    of_prod = await tenant(site, "viewer", labels={"env": "prod"})
    agent, _ = await labelled(site, "prod", env="prod")
    await site.deploy("web")
    agent.hold("web")
    asking = [asyncio.create_task(caller.get("/projects/web/status", wait=20)) for caller in (site, of_prod)]
    await agent.started(2)
    for outsider in (other, limited):
        assert await outsider.refused("GET", "/projects/web/status") == (404, "project_not_found")
    agent.release("web")
    assert len({answer["job_id"] for answer in await asyncio.gather(*asking)}) == 1
    assert {run.type for run in agent.executions[1:]} == {"STATUS"}


async def test_whether_others_have_agents_is_not_told_to_who_has_none(site: Site) -> None:
    other = await tenant(site, "deployer", organization_id=await organization(site, "other"))
    limited = await tenant(site, "deployer", labels=STAGING)
    before = [await deploys(caller) for caller in (other, limited)]
    await labelled(site, "prod", env="prod")
    assert [await deploys(caller) for caller in (other, limited)] == before


async def test_root_with_limits_manages_no_organisations(site: Site) -> None:
    caller = await tenant(site, "root", projects=["shop-*"])
    assert await caller.refused("GET", "/organizations") == (403, "not_allowed")
    assert await caller.refused("POST", "/organizations", {"name": "mine"}) == (403, "not_allowed")
