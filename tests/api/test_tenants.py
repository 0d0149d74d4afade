"""What a caller does not reach does not exist for it: every operation, on everything that another organisation has.

Three callers try: an admin of another organisation, and two of the same organisation whose tokens are limited to
labels that no agent has, and to projects that there are not. A route that is new fails until it is listed here.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from control_plane.core.access import Reach
from control_plane.store import jobs
from control_plane.store.reaching import limits
from control_plane.store.tables import job_table
from tests.api.test_openapi import PUBLIC, every_operation, operations
from tests.support.app import Site, contract, running_site
from tests.support.tenants import Tenant, made, organization, rows_of, tenant

in_the_module = pytest.mark.asyncio(loop_scope="module")

HIDDEN = "services:\n  web:\n    image: example.com/hidden-image\n"
NOTHING, SEEN, OWN = "nothing", "seen", "its own"
"""A list without rows or a 404; what every caller of the organisation may see; something new that is the caller's."""
FORBIDDEN, NO_AGENTS = "not_allowed", "no_agents"

EXPECTED: dict[str, tuple[str, str, str]] = {
    # operation: (another organisation's admin, limited to labels, limited to projects)
    "list_agents": (NOTHING, NOTHING, SEEN),
    "get_agent": (NOTHING, NOTHING, SEEN),
    "change_agent": (NOTHING, NOTHING, FORBIDDEN),
    "forget_agent": (NOTHING, NOTHING, FORBIDDEN),
    "check_agent_health": (NOTHING, NOTHING, SEEN),
    "create_agent_token": (NOTHING, NOTHING, FORBIDDEN),
    "revoke_agent_token": (NOTHING, NOTHING, FORBIDDEN),
    "create_enrollment": (OWN, OWN, FORBIDDEN),
    "deploy": (NO_AGENTS, NO_AGENTS, FORBIDDEN),
    "list_deployments": (NOTHING, NOTHING, NOTHING),
    "get_deployment": (NOTHING, NOTHING, NOTHING),
    "get_compose_file": (NOTHING, NOTHING, NOTHING),
    "list_jobs": (NOTHING, NOTHING, NOTHING),
    "get_job": (NOTHING, NOTHING, NOTHING),
    "cancel_job": (NOTHING, NOTHING, NOTHING),
    "list_projects": (NOTHING, NOTHING, NOTHING),
    "get_project": (NOTHING, NOTHING, NOTHING),
    "get_project_status": (NOTHING, NOTHING, NOTHING),
    "stop_project": (NOTHING, NOTHING, FORBIDDEN),
    "list_events": (NOTHING, NOTHING, NOTHING),
    "get_me": (OWN, OWN, OWN),
    "list_tokens": (OWN, FORBIDDEN, FORBIDDEN),
    "create_token": (OWN, FORBIDDEN, FORBIDDEN),
    "rotate_token": (NOTHING, FORBIDDEN, FORBIDDEN),
    "revoke_token": (NOTHING, FORBIDDEN, FORBIDDEN),
    "list_audit": (SEEN, FORBIDDEN, FORBIDDEN),  # what its own organisation has tried, with the names that it tried
    "export_audit": (SEEN, FORBIDDEN, FORBIDDEN),
    "list_organizations": (FORBIDDEN, FORBIDDEN, FORBIDDEN),
    "create_organization": (FORBIDDEN, FORBIDDEN, FORBIDDEN),
    "get_metrics": (FORBIDDEN, FORBIDDEN, FORBIDDEN),
}
OUTSIDERS = ("another organisation", "labels", "projects")


@dataclass(frozen=True)
class World:
    """What the first organisation has, and who tries to get at it."""

    site: Site
    database: Path
    ids: dict[str, str]
    """Of what there is, as paths name them; `agent_id` is of the agent that is offline."""
    online: str
    """The other agent's id."""
    secrets: tuple[str, ...]
    """Texts that no outsider may be answered."""
    outsiders: dict[str, Tenant]

    @property
    def stored(self) -> dict[str, set[Any]]:
        return rows_of(self.database, 1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> AsyncIterator[World]:
    database = tmp_path_factory.mktemp("tenants") / "control_plane.db"
    async with running_site(database, migrated=migrated_database) as site:
        yield await settled(site, database)


async def settled(site: Site, database: Path) -> World:
    """Give the first organisation two agents, a project, a job that waits, tokens and events."""
    online, offline = await site.agent("hidden-on"), await site.offline_agent("hidden-off")
    agent_id = await site.id_of(offline)
    await site.deploy("hidden-shop", file=HIDDEN, agent_id=await site.id_of(online))
    waiting = await site.deploy("hidden-queue", file=HIDDEN, agent_id=agent_id, when_offline="queue", wait=0)
    token = await tenant(site, "deployer", name="hidden-token")
    await made(site.client, "/agents/enroll", {"name": "hidden-enrolment"})
    other = await organization(site, "other")
    outsiders = [
        await tenant(site, "admin", organization_id=other),
        await tenant(site, "admin", labels={"env": "staging"}),
        await tenant(site, "admin", projects=["other-*"]),
    ]
    ids = {"name": "hidden-shop", "agent_id": agent_id, "deployment_id": 1, "job_id": waiting["job_id"]}
    jobs_there = [job["id"] for job in (await site.get("/jobs"))["jobs"]]
    hidden = ("hidden-on", "hidden-off", "hidden-shop", "hidden-queue", "hidden-image", "hidden-token")
    return World(
        site=site,
        database=database,
        ids={name: str(value) for name, value in {**ids, "token_id": token.token_id}.items()},
        online=str(await site.id_of(online)),
        secrets=(*hidden, "hidden-enrolment", *jobs_there),
        outsiders=dict(zip(OUTSIDERS, outsiders, strict=True)),
    )


def test_each_operation_but_the_public_ones_is_tried() -> None:
    assert {param.values[2]["operationId"] for param in operations()} - PUBLIC == set(EXPECTED)


@in_the_module
@pytest.mark.promise("tenants")
@pytest.mark.parametrize("outsider", OUTSIDERS)
@every_operation
async def test_what_is_out_of_reach_is_not_there_for_any_operation_and_stays_as_it_is(
    world: World, outsider: str, method: str, path: str, operation: dict[str, Any]
) -> None:
    if operation["operationId"] not in PUBLIC:
        await check(world, outsider, method, path, operation)


async def check(world: World, outsider: str, method: str, path: str, operation: dict[str, Any]) -> None:
    """Assert that an operation tells and changes nothing that the caller does not reach."""
    caller = world.outsiders[outsider]
    expected = EXPECTED[operation["operationId"]][OUTSIDERS.index(outsider)]
    before = world.stored
    for url, params, body in attempts(world, method, path, operation):
        answer = await caller.client.request(method, url, params=params, json=body)
        told = f"{method} {url} {params} {body} -> {answer.status_code} {answer.text[:500]}"
        assert as_expected(answer, expected), f"{told}, and not: {expected}"
        if expected != SEEN:
            sent = f"{url} {params} {body}"
            leaked = [secret for secret in world.secrets if secret in answer.text and secret not in sent]
            assert not leaked, f"{leaked} in {told}"
    if expected == SEEN and method != "GET":
        return
    after = world.stored
    assert {table: rows for table, rows in after.items() if table != "token"} == {
        table: rows for table, rows in before.items() if table != "token"
    }
    assert before["token"] <= after["token"]
    assert expected == OWN or before["token"] == after["token"]


def attempts(world: World, method: str, path: str, operation: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return path, query and body of each way to name what the first organisation has."""
    url = path.format(**world.ids)
    if operation["operationId"] == "deploy":
        body = {"project_name": "hidden-shop", "compose_file": HIDDEN}
        return [(url, {}, body), (url, {"wait": "1"}, {**body, "project_name": "HIDDEN-shop"})]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        name = next(part["$ref"] for part in (schema, *schema.get("anyOf", ())) if "$ref" in part).rpartition("/")[2]
        examples = contract().document["components"]["schemas"][name]["examples"]
        return [(url, {}, example) for example in examples if "labels" not in example]
    known = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    filters: dict[str, Any] = {"project": "hidden-shop", "agent_id": world.online, "wait": "0.1"}
    usable = {name: value for name, value in filters.items() if name in known}
    found = [(url, {}, None), *((url, {name: value}, None) for name, value in usable.items()), (url, usable, None)]
    if path == "/agents/{agent_id}":
        found += [(path.format(agent_id=world.online), {}, None)] if method != "DELETE" else []
    return found


def as_expected(answer: httpx.Response, expected: str) -> bool:
    if expected in {SEEN, OWN}:
        return answer.is_success or answer.json()["code"] == "agent_not_connected"
    if expected == NOTHING and answer.is_success:
        page = answer.json() if answer.content else {}
        rows = [value for value in page.values() if isinstance(value, list)]
        return rows == [[]] and page.get("next_cursor", "") is None and page.get("total", 0) == 0
    code = answer.json()["code"]
    return bool(code.endswith("_not_found") if expected == NOTHING else code == expected)


@in_the_module
@pytest.mark.parametrize("outsider", OUTSIDERS)
async def test_no_cursor_leads_out_of_reach(world: World, outsider: str) -> None:
    caller = world.outsiders[outsider]
    cursors = {
        "/deployments": "99",
        "/events": "9999",
        "/projects": "a",
        "/jobs": "ffffffff-ffff-7fff-bfff-ffffffffffff",
    }
    for path, cursor in cursors.items():
        page = await caller.get(path, cursor=cursor, limit=1)
        assert [value for value in page.values() if isinstance(value, list)] == [[]]
        assert page["next_cursor"] is None


@in_the_module
@pytest.mark.parametrize("outsider", OUTSIDERS[:2])
async def test_a_deploy_that_names_an_agent_out_of_reach_finds_none(world: World, outsider: str) -> None:
    before = world.stored
    for agent_id in (world.ids["agent_id"], world.online):
        for when_offline in ("fail", "queue"):
            body = {"project_name": "other-1", "compose_file": HIDDEN, "agent_id": int(agent_id)}
            answer = await world.outsiders[outsider].client.post("/deploy", json={**body, "when_offline": when_offline})
            assert (answer.status_code, answer.json()["code"]) == (404, "agent_not_found")
            assert "hidden" not in answer.text
    assert world.stored == before


@in_the_module
@pytest.mark.control("tenants")
async def test_a_query_without_the_condition_of_reach_would_be_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_organization(_table: object, reach: Reach) -> list[Any]:
        return limits(job_table, reach)

    monkeypatch.setattr(jobs, "within", without_organization)
    operation = contract().document["paths"]["/jobs/{job_id}"]["get"]
    with pytest.raises(AssertionError, match="hidden-queue"):
        await check(world, OUTSIDERS[0], "GET", "/jobs/{job_id}", operation)
