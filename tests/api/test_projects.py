"""Projects: where they run, stopping them, and asking their agent what runs."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.conftest import OpenSite
from tests.support.app import WEB, Site
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Command, Outcome
from tests.support.problem_app import checked


async def on_two_agents(site: Site) -> tuple[int, int]:
    ids = [await site.id_of(await site.agent(name)) for name in ("host-1", "host-2")]
    for agent_id in ids:
        await site.deploy("web", agent_id=agent_id)
    return ids[0], ids[1]


async def test_a_stop_without_a_body_stops_the_project(site: Site, agent: GoAgent) -> None:
    deployment_id = (await site.deploy("web"))["deployment_id"]
    answer = await site.post("/projects/web/stop", wait=30)
    assert (answer["status"], answer["message"]) == ("completed", "'web' is stopped.")
    assert "Removed" in answer["logs"]
    assert "web" not in agent.host.up
    assert (await site.get(f"/deployments/{deployment_id}"))["status"] == "stopped"
    assert (await site.get("/projects/web"))["agents"][0]["current"] is None


@pytest.mark.parametrize("body", [{}, {"agent_id": 1}, {"timeout_seconds": 10}, None])
async def test_a_stop_takes_a_body_that_says_little(site: Site, agent: GoAgent, body: Any) -> None:
    await site.deploy("web")
    content = b"null" if body is None else None
    headers = {"Content-Type": "application/json"}
    response = await site.client.post("/projects/web/stop", json=body, content=content, headers=headers)
    answer = response.json()
    assert (response.status_code, answer["status"]) == (200, "queued")
    assert answer["job_id"] in answer["message"]
    assert (await site.get(f"/jobs/{answer['job_id']}", wait=30))["status"] == "completed"


async def test_a_stop_may_set_its_own_time(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    job_id = (await site.post("/projects/web/stop", {"timeout_seconds": 77}, wait=30))["job_id"]
    assert (await site.get(f"/jobs/{job_id}"))["timeout_seconds"] == 77


async def test_a_stop_that_is_not_done_in_time_says_that_it_goes_on(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    agent.hold("web")
    answer = await site.post("/projects/web/stop", wait=0.05)
    assert answer["status"] in {"queued", "in_progress"}
    assert "still being stopped" in answer["message"]
    agent.release("web")
    assert (await site.get(f"/jobs/{answer['job_id']}", wait=30))["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"agent": 1}, "agent"),
        ({"agent_id": 0}, "agent_id"),
        ({"agent_id": 2**63}, "agent_id"),
        ({"timeout_seconds": 9}, "timeout_seconds"),
        ({"timeout_seconds": "60"}, "timeout_seconds"),
    ],
)
async def test_a_field_of_a_stop_that_is_not_valid_is_named(site: Site, body: Any, field: str) -> None:
    problem = checked(await site.client.post("/projects/web/stop", json=body), 422, "invalid_input")
    assert problem.fields[0].field == field


async def test_a_stop_whose_body_is_no_json_is_told_so(site: Site) -> None:
    headers = {"Content-Type": "text/plain"}
    response = await site.client.post("/projects/web/stop", content=b"now", headers=headers)
    checked(response, 415, "unsupported_media_type")


async def test_a_project_on_several_agents_is_stopped_only_where_asked(site: Site) -> None:
    first, second = await on_two_agents(site)
    problem = checked(await site.client.post("/projects/web/stop"), 422, "invalid_input")
    assert f"({first}, {second})" in problem.detail or f"({second}, {first})" in problem.detail
    assert problem.fields[0].field == "agent_id"
    await site.post("/projects/web/stop", {"agent_id": second}, wait=30)
    places = (await site.get("/projects/web"))["agents"]
    assert [(place["agent"]["id"], place["current"] is None) for place in places] == [(first, False), (second, True)]
    assert (await site.post("/projects/web/stop", wait=30))["status"] == "completed"


async def test_a_stop_on_an_agent_that_never_had_the_project_is_404(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    other = await site.id_of(await site.agent("host-2"))
    response = await site.client.post("/projects/web/stop", json={"agent_id": other})
    assert f"agent {other}" in checked(response, 404, "project_not_found").detail


async def test_a_stop_that_fails_leaves_the_project_running_and_says_why(site: Site, agent: GoAgent) -> None:
    deployment_id = (await site.deploy("web"))["deployment_id"]
    agent.fail("web", "a container does not end")
    answer = await site.post("/projects/web/stop", wait=30)
    assert (answer["status"], answer["reason"], answer["error"]) == (
        "failed",
        "agent_error",
        "a container does not end",
    )
    assert "could not be stopped" in answer["message"]
    deployment = await site.get(f"/deployments/{deployment_id}")
    assert (deployment["status"], deployment["last_error"]) == ("running", "a container does not end")
    assert (await site.get("/projects/web"))["agents"][0]["current"]["id"] == deployment_id


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/projects/web/stop"), ("GET", "/projects/web/status"), ("GET", "/projects/web")]
)
async def test_a_project_that_was_never_deployed_is_404(site: Site, agent: GoAgent, method: str, path: str) -> None:
    problem = checked(await site.client.request(method, path), 404, "project_not_found")
    assert "'web'" in problem.detail


@pytest.mark.parametrize(("method", "path"), [("POST", "/projects/web/stop"), ("GET", "/projects/web/status")])
async def test_a_project_whose_agent_is_offline_is_503_with_when_to_try_again(
    site: Site, agent: GoAgent, method: str, path: str
) -> None:
    await site.deploy("web")
    await site.unplug(agent)
    before = await site.stored()
    response = await site.client.request(method, path)
    assert "host-1" in checked(response, 503, "agent_not_connected").detail
    assert response.headers["retry-after"] == "10"
    assert await site.stored() == before


async def test_a_stop_for_a_full_queue_is_429(open_site: OpenSite) -> None:
    site = await open_site(max_queued_jobs_per_agent=1)
    agent = await site.agent()
    await site.deploy("web")
    agent.hold("web")
    first = await site.post("/projects/web/stop")
    await agent.started(2)
    await site.post("/projects/web/stop")
    checked(await site.client.post("/projects/web/stop"), 429, "queue_full")
    agent.release("web")
    assert (await site.get(f"/jobs/{first['job_id']}", wait=30))["status"] == "completed"


async def test_status_tells_what_the_agent_says(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    answer = await site.get("/projects/web/status")
    assert answer["status"] == "completed"
    assert "web-web-1" in answer["logs"]
    assert "Command received" not in answer["logs"]
    assert answer["data"] is None


async def test_status_is_the_table_alone_also_when_the_store_takes_all_answers_at_once(
    site: Site, agent: GoAgent
) -> None:
    await site.deploy("web")
    for _ in range(20):
        assert (await site.get("/projects/web/status"))["logs"].startswith("NAME")


async def test_status_tells_the_data_of_agents_that_give_some(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    containers = [{"Name": "web-1", "State": "running"}]

    async def work(command: Command) -> Outcome:
        return Outcome(logs="NAME", data=containers)

    agent.work = work
    assert (await site.get("/projects/web/status"))["data"] == containers


async def test_callers_at_the_same_time_share_one_question(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    agent.hold("web")
    asking = [asyncio.create_task(site.get("/projects/web/status", wait=30)) for _ in range(20)]
    await agent.started(2)
    assert (await site.get("/projects/web/status", wait=0))["status"] in {"queued", "in_progress"}
    agent.release("web")
    answers = await asyncio.gather(*asking)
    assert {answer["status"] for answer in answers} == {"completed"}
    assert len({answer["job_id"] for answer in answers}) == 1
    assert [command.type for command in agent.commands].count("STATUS") == 1
    later = await site.get("/projects/web/status")
    assert later["job_id"] != answers[0]["job_id"]


async def test_a_status_that_takes_longer_than_the_wait_can_be_followed(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    agent.hold("web")
    answer = await site.get("/projects/web/status", wait=0.05)
    assert answer["status"] in {"queued", "in_progress"}
    agent.release("web")
    assert "web-web-1" in (await site.get(f"/jobs/{answer['job_id']}", wait=30))["logs"]


async def test_status_of_a_project_on_several_agents_names_the_one_that_is_asked(site: Site) -> None:
    first, second = await on_two_agents(site)
    checked(await site.client.get("/projects/web/status"), 422, "invalid_input")
    for agent_id in (first, second):
        job_id = (await site.get("/projects/web/status", agent_id=agent_id))["job_id"]
        assert (await site.get(f"/jobs/{job_id}"))["agent_id"] == agent_id


async def test_status_passes_a_deploy_that_takes_long(site: Site, agent: GoAgent) -> None:
    pulled = asyncio.Event()

    async def work(command: Command) -> Outcome:
        if command.type == "DEPLOY_COMPOSE":
            await pulled.wait()
        return await agent.host.compose(command)

    agent.work = work
    deploy = await site.deploy("web", wait=0)
    assert (await site.get("/projects/web/status", wait=30))["status"] == "completed"
    assert (await site.get(f"/jobs/{deploy['job_id']}"))["status"] == "in_progress"
    pulled.set()
    assert (await site.get(f"/jobs/{deploy['job_id']}", wait=30))["status"] == "completed"


async def test_a_project_tells_where_it_runs_and_what_was_deployed_last(site: Site, agent: GoAgent) -> None:
    good = (await site.deploy("web"))["deployment_id"]
    agent.fail("web", "no")
    bad = (await site.deploy("web"))["deployment_id"]
    project = await site.get("/projects/web")
    place = project["agents"][0]
    assert (project["project_name"], place["agent"]["hostname"]) == ("web", "host-1")
    assert (place["current"]["id"], place["current"]["status"]) == (good, "running")
    assert (place["latest"]["id"], place["latest"]["status"]) == (bad, "failed")


async def test_projects_are_listed_by_name_in_pages_of_whole_projects(site: Site) -> None:
    await on_two_agents(site)
    for name in ("app", "zoo"):
        await site.deploy(name, wait=0)
    seen: list[tuple[str, int]] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = await site.get("/projects", limit=1, **cursor)
        seen += [(project["project_name"], len(project["agents"])) for project in page["projects"]]
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [("app", 1), ("web", 2), ("zoo", 1)]
    assert page["next_cursor"] is None
    assert len((await site.get("/projects"))["projects"]) == 3


@pytest.mark.parametrize("cursor", ["\u0000", "a b", "wéb", "", "x" * 64, "x" * 300])
async def test_a_cursor_of_projects_that_no_page_gave_is_refused(site: Site, cursor: str) -> None:
    problem = checked(await site.client.get("/projects", params={"cursor": cursor}), 422, "invalid_input")
    assert problem.fields[0].field == "cursor"


@pytest.mark.parametrize("name", ["a b", "web\0", "web\n", "\uff57eb", "%", "-", "x" * 64, "x" * 5000, "\N{ROCKET}"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/status"), ("POST", "/stop")])
async def test_a_hostile_name_in_a_path_is_refused(site: Site, name: str, method: str, path: str) -> None:
    response = await site.client.request(method, f"/projects/{quote(name, safe='')}{path}")
    problem = checked(response, 422, "invalid_input")
    assert problem.fields[0].field in {"name", "project_name"}


@pytest.mark.parametrize(
    "path", ["/projects/%2e%2e", "/projects/..%2f..%2fetc", "/projects/%ff", "/projects/a%2fb/stop"]
)
async def test_a_path_that_climbs_or_is_no_text_finds_nothing(site: Site, path: str) -> None:
    response = await site.client.get(path)
    assert response.status_code in {404, 405, 422}


async def test_a_deploy_that_was_taken_back_before_it_was_sent_leaves_the_name_free(site: Site) -> None:
    agent = await site.offline_agent()
    body = {"project_name": "Web", "compose_file": WEB, "agent_id": await site.id_of(agent), "when_offline": "queue"}
    await site.post(f"/jobs/{(await site.post('/deploy', body))['job_id']}/cancel")
    agent.plug_in()
    await agent.connected(2)
    assert (await site.deploy("web"))["status"] == "completed"


@pytest.mark.parametrize(("method", "path"), [("POST", "/projects/Web/stop"), ("GET", "/projects/Web/status")])
async def test_a_stopped_project_does_not_reach_the_containers_of_the_one_that_has_its_name_now(
    site: Site, agent: GoAgent, method: str, path: str
) -> None:
    await site.deploy("Web")
    await site.post("/projects/Web/stop", wait=30)
    await site.deploy("web")
    sent = len(agent.commands)
    response = await site.client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (409, "name_collision")
    assert "'web'" in response.json()["detail"]
    assert len(agent.commands) == sent
