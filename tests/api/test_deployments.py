"""Deployments: what was deployed, the very file, and what became of each."""

import base64
import hashlib
from typing import Any

import pytest

from tests.support.app import WEB, Site
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked

FILES = {
    "plain": WEB.encode(),
    "no newline at the end": WEB.rstrip().encode(),
    "CRLF": WEB.replace("\n", "\r\n").encode(),
    "byte order mark": b"\xef\xbb\xbf" + WEB.encode(),
    "not ASCII": f"# Größe \N{ROCKET}\n{WEB}".encode(),
}


@pytest.mark.parametrize("source", FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("field", ["compose_file", "compose_file_base64"])
async def test_the_compose_file_comes_back_as_it_was_sent(
    site: Site, agent: GoAgent, source: bytes, field: str
) -> None:
    text = source.decode() if field == "compose_file" else base64.b64encode(source).decode()
    deployment_id = (await site.post("/deploy", {"project_name": "web", field: text}, wait=30))["deployment_id"]
    response = await site.client.get(f"/deployments/{deployment_id}/compose")
    assert response.content == source
    assert response.headers["content-type"] == "application/yaml"
    assert agent.host.projects["web"] == source
    sha256 = hashlib.sha256(source).hexdigest()
    assert (await site.get(f"/deployments/{deployment_id}"))["compose_file_hash"] == sha256


async def test_each_deployment_keeps_its_own_file(site: Site, agent: GoAgent) -> None:
    other = WEB.replace("nginx", "caddy")
    ids = [(await site.deploy("web", file=file))["deployment_id"] for file in (WEB, other, WEB)]
    texts = [(await site.client.get(f"/deployments/{deployment_id}/compose")).text for deployment_id in ids]
    assert texts == [WEB, other, WEB]


async def test_a_deployment_goes_from_pending_over_running_to_superseded(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    first = await site.deploy("web", wait=0)
    await agent.started(1)
    assert (await site.get(f"/deployments/{first['deployment_id']}"))["status"] == "pending"
    agent.release("web")
    await site.get(f"/jobs/{first['job_id']}", wait=30)
    deployment = await site.get(f"/deployments/{first['deployment_id']}")
    assert (deployment["status"], deployment["last_error"]) == ("running", None)
    assert "Started" in deployment["last_logs"]
    second = await site.deploy("web")
    states = [(row["id"], row["status"]) for row in (await site.get("/deployments"))["deployments"]]
    assert states == [(second["deployment_id"], "running"), (first["deployment_id"], "superseded")]


async def test_a_deploy_that_fails_leaves_the_one_before_running(site: Site, agent: GoAgent) -> None:
    first = (await site.deploy("web"))["deployment_id"]
    agent.fail("web", "no such image")
    second = (await site.deploy("web"))["deployment_id"]
    failed = await site.get(f"/deployments/{second}")
    assert (failed["status"], failed["last_error"]) == ("failed", "no such image")
    assert (await site.get(f"/deployments/{first}"))["status"] == "running"


async def test_the_same_project_on_another_agent_is_not_superseded(site: Site, agent: GoAgent) -> None:
    first = await site.deploy("web")
    await site.deploy("web", agent_id=await site.id_of(await site.agent("host-2")))
    assert (await site.get(f"/deployments/{first['deployment_id']}"))["status"] == "running"


async def test_deployments_are_filtered_by_project_agent_and_status(site: Site, agent: GoAgent) -> None:
    other_id = await site.id_of(await site.agent("host-2"))
    agent_id = await site.id_of(agent)
    old = (await site.deploy("web", agent_id=agent_id))["deployment_id"]
    new = (await site.deploy("web"))["deployment_id"]
    far = (await site.deploy("far", agent_id=other_id))["deployment_id"]
    agent.fail("bad", "no")
    bad = (await site.deploy("bad", agent_id=agent_id))["deployment_id"]

    async def ids(**filters: Any) -> list[int]:
        return [row["id"] for row in (await site.get("/deployments", **filters))["deployments"]]

    assert await ids() == [bad, far, new, old]
    assert await ids(project="web") == [new, old]
    assert await ids(agent_id=other_id) == [far]
    assert await ids(status="failed") == [bad]
    assert await ids(status="running") == [far, new]
    assert await ids(status="superseded", project="web", agent_id=agent_id) == [old]
    assert await ids(status="pending") == await ids(project="nobody's \0") == []


async def test_pages_hold_each_deployment_once_though_new_ones_arrive(site: Site, agent: GoAgent) -> None:
    old = [(await site.deploy(f"p{number}", wait=0))["deployment_id"] for number in range(5)]
    page = await site.get("/deployments", limit=2)
    seen = [row["id"] for row in page["deployments"]]
    while page["next_cursor"]:
        await site.deploy(f"late-{len(seen)}", wait=0)
        page = await site.get("/deployments", limit=2, cursor=page["next_cursor"])
        seen += [row["id"] for row in page["deployments"]]
    assert seen == old[::-1]


@pytest.mark.parametrize("path", ["/deployments/1", "/deployments/1/compose", f"/deployments/{2**63 - 1}"])
async def test_a_deployment_that_does_not_exist_is_404(site: Site, path: str) -> None:
    checked(await site.client.get(path), 404, "deployment_not_found")


@pytest.mark.parametrize("deployment_id", ["0", "-1", str(2**63), "9" * 40, "x", "1.5", "%00", "%D9%A1%00"])
@pytest.mark.parametrize("path", ["", "/compose"])
async def test_an_id_that_none_can_have_is_refused(site: Site, deployment_id: str, path: str) -> None:
    problem = checked(await site.client.get(f"/deployments/{deployment_id}{path}"), 422, "invalid_input")
    assert problem.fields[0].field == "deployment_id"


@pytest.mark.parametrize(
    "params",
    [
        *({"cursor": cursor} for cursor in ("x", "", "-1", str(2**63), "\N{SUPERSCRIPT TWO}")),
        *({"limit": limit} for limit in (0, 1001)),
        {"agent_id": 2**63},
        {"status": "done"},
    ],
)
async def test_a_filter_or_cursor_that_is_not_valid_is_named(site: Site, params: dict[str, Any]) -> None:
    problem = checked(await site.client.get("/deployments", params=params), 422, "invalid_input")
    assert [field.field for field in problem.fields] == list(params)
