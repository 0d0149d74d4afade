"""POST /deploy: what is accepted, where it goes, how waiting for it ends, and that nothing refused is stored."""

import asyncio
import json
from collections import Counter

import pytest

from control_plane.api import json_body
from tests.api.conftest import OpenSite
from tests.support.app import WEB, Site
from tests.support.deploys import base64_of, refused
from tests.support.go_agent import GoAgent


async def test_a_deploy_is_accepted_at_once_and_can_be_followed_to_its_end(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    answer = await site.post("/deploy", {"project_name": "web", "compose_file": WEB})
    assert answer["status"] == "queued"
    assert (answer["logs"], answer["error"], answer["reason"]) == (None, None, None)
    assert answer["job_id"] in answer["message"]
    await agent.started(1)
    assert agent.host.projects["web"] == WEB.encode()
    assert (await site.get(f"/deployments/{answer['deployment_id']}"))["status"] == "pending"
    agent.release("web")
    job = await site.get(f"/jobs/{answer['job_id']}", wait=30)
    assert (job["status"], job["deployment_id"]) == ("completed", answer["deployment_id"])
    assert (await site.get(f"/deployments/{answer['deployment_id']}"))["status"] == "running"


@pytest.mark.parametrize("line_break", ["", "\n", "\r\n"])
async def test_base64_is_taken_with_and_without_line_breaks(site: Site, agent: GoAgent, line_break: str) -> None:
    text = base64_of(WEB)
    broken = line_break.join(text[at : at + 19] for at in range(0, len(text), 19)) + line_break
    answer = await site.post("/deploy", {"project_name": "web", "compose_file_base64": broken}, wait=30)
    assert answer["status"] == "completed"
    assert agent.host.projects["web"] == WEB.encode()
    assert "\n" not in agent.commands[0].payload["compose_file_base64"]


async def test_a_deploy_that_is_waited_for_tells_its_logs(site: Site, agent: GoAgent) -> None:
    answer = await site.deploy("web")
    assert (answer["status"], answer["message"]) == ("completed", "'web' is deployed.")
    assert "Started" in answer["logs"]
    assert (answer["error"], answer["reason"]) == (None, None)


async def test_a_deploy_that_fails_tells_why_with_reason_error_and_logs(site: Site, agent: GoAgent) -> None:
    agent.fail("web", "port 8080 is taken")
    answer = await site.deploy("web")
    assert (answer["status"], answer["reason"], answer["error"]) == ("failed", "agent_error", "port 8080 is taken")
    assert "exit status 1" in answer["logs"]
    assert "could not be deployed" in answer["message"]


async def test_when_the_wait_is_over_first_the_answer_says_that_it_is_under_way(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    answer = await site.deploy("web", wait=0.05)
    assert answer["status"] in {"queued", "in_progress"}
    assert "still under way" in answer["message"]
    agent.release("web")
    assert (await site.get(f"/jobs/{answer['job_id']}", wait=30))["status"] == "completed"


async def test_a_named_agent_gets_the_deploy(site: Site) -> None:
    await site.agent("host-1")
    second = await site.agent("host-2")
    wanted = await site.id_of(second)
    assert (await site.deploy("web", agent_id=wanted))["agent_id"] == wanted
    assert "web" in second.host.projects


async def test_a_project_goes_to_its_own_agent_again(site: Site) -> None:
    first, second = await site.agent("host-1"), await site.agent("host-2")
    home = await site.id_of(second)
    await site.deploy("web", agent_id=home)
    await site.deploy("other", agent_id=home)
    assert (await site.deploy("web"))["agent_id"] == home
    assert not first.executions


async def test_a_new_project_goes_where_the_fewest_deployments_are_and_to_the_lowest_id_among_equals(
    site: Site,
) -> None:
    ids = [await site.id_of(await site.agent(f"host-{number}")) for number in (1, 2, 3)]
    assert [(await site.deploy(f"p{number}"))["agent_id"] for number in range(4)] == [*ids, ids[0]]
    await site.post("/projects/p1/stop", wait=30)
    assert (await site.deploy("p5"))["agent_id"] == ids[1]


async def test_new_projects_posted_at_once_are_spread_over_the_agents(site: Site) -> None:
    ids = [await site.id_of(await site.agent(f"host-{number}")) for number in (1, 2, 3)]
    answers = await asyncio.gather(*(site.deploy(f"p{number}") for number in range(30)))
    # Not ten each to the letter: a deploy may be stored between another's look at the loads and its choice.
    taken = Counter(answer["agent_id"] for answer in answers)
    assert all(5 <= taken[agent_id] <= 15 for agent_id in ids)


async def test_an_agent_that_is_offline_is_not_chosen_for_a_new_project(site: Site) -> None:
    await site.offline_agent("host-1")
    second = await site.agent("host-2")
    assert (await site.deploy("web"))["agent_id"] == await site.id_of(second)


async def test_a_deploy_to_an_agent_that_is_offline_fails_with_when_to_try_again(site: Site) -> None:
    agent = await site.offline_agent()
    body = {"project_name": "web", "compose_file": WEB, "agent_id": await site.id_of(agent)}
    problem = await refused(site, 503, "agent_not_connected", body)
    assert "host-1" in problem.detail
    assert "last seen" in problem.detail


async def test_a_queued_deploy_is_delivered_when_its_agent_comes(site: Site) -> None:
    agent = await site.offline_agent()
    body = {"project_name": "web", "compose_file": WEB, "agent_id": await site.id_of(agent), "when_offline": "queue"}
    answer = await site.post("/deploy", body)
    assert answer["status"] == "queued"
    assert "when it connects" in answer["message"]
    assert (await site.get(f"/jobs/{answer['job_id']}"))["attempt"] == 0
    agent.plug_in()
    assert (await site.get(f"/jobs/{answer['job_id']}", wait=30))["status"] == "completed"
    assert "web" in agent.host.up


async def test_a_project_whose_agent_is_offline_is_not_moved_elsewhere(site: Site) -> None:
    home = await site.agent("host-1")
    await site.deploy("web")
    await site.unplug(home)
    other = await site.agent("host-2")
    await refused(site, 503, "agent_not_connected", {"project_name": "web", "compose_file": WEB})
    assert not other.executions


async def test_without_any_agent_a_deploy_says_so(site: Site) -> None:
    await refused(site, 503, "no_agents", {"project_name": "web", "compose_file": WEB})
    body = {"project_name": "web", "compose_file": WEB, "when_offline": "queue"}
    await refused(site, 503, "no_agents", body)


@pytest.mark.promise("traversal")
@pytest.mark.parametrize("name", ["web", "_web", "-WEB"])
async def test_a_name_that_compose_would_fold_into_another_project_is_refused(
    site: Site, agent: GoAgent, name: str
) -> None:
    await site.deploy("Web")
    problem = await refused(site, 409, "name_collision", {"project_name": name, "compose_file": WEB})
    assert f"'{name}' and 'Web'" in problem.detail


async def test_the_folded_name_is_free_again_once_the_project_is_stopped(site: Site, agent: GoAgent) -> None:
    await site.deploy("Web")
    await site.post("/projects/Web/stop", wait=30)
    assert (await site.deploy("web"))["status"] == "completed"


async def test_a_full_queue_is_told_and_takes_more_when_there_is_room(open_site: OpenSite) -> None:
    site = await open_site(max_queued_jobs_per_agent=2)
    agent = await site.offline_agent()
    agent_id = await site.id_of(agent)
    bodies = [
        {"project_name": f"p{number}", "compose_file": WEB, "agent_id": agent_id, "when_offline": "queue"}
        for number in range(3)
    ]
    accepted = [await site.post("/deploy", body) for body in bodies[:2]]
    problem = await refused(site, 429, "queue_full", bodies[2])
    assert "2 jobs" in problem.detail
    await site.post(f"/jobs/{accepted[0]['job_id']}/cancel")
    await site.post("/deploy", bodies[2])


@pytest.mark.parametrize("seconds", [10, 86_400])
async def test_a_deploy_may_set_its_own_time(site: Site, agent: GoAgent, seconds: int) -> None:
    answer = await site.deploy("web", timeout_seconds=seconds)
    assert (await site.get(f"/jobs/{answer['job_id']}"))["timeout_seconds"] == seconds


async def test_what_may_not_work_is_told_as_a_warning_and_deployed(site: Site, agent: GoAgent) -> None:
    file = "services:\n  web:\n    image: nginx:${TAG}\n    env_file: ./web.env\n"
    answer = await site.deploy("web", file=file)
    assert answer["status"] == "completed"
    assert any("env_file" in warning for warning in answer["warnings"])
    assert any("TAG" in warning for warning in answer["warnings"])


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.deploy+json"])
async def test_json_by_another_name_is_taken_here_as_on_every_route(
    site: Site, agent: GoAgent, content_type: str
) -> None:
    content = b'{"project_name": "web", "compose_file_base64": "' + base64_of(WEB).encode() + b'"}'
    response = await site.client.post("/deploy", content=content, headers={"Content-Type": content_type})
    assert response.status_code == 200, response.text


FORMS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; json"]
"""What a page of any site may send without asking first (Fetch, section 2.2.2), and a look-alike."""


@pytest.mark.promise("browsers")
@pytest.mark.parametrize("content_type", FORMS)
async def test_json_that_a_form_could_send_is_refused(site: Site, agent: GoAgent, content_type: str) -> None:
    await check_form(site, agent, content_type)


@pytest.mark.control("browsers")
async def test_a_content_type_that_nobody_asks_for_would_be_found(
    site: Site, agent: GoAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_body, "says_json", lambda _headers: True)
    with pytest.raises(AssertionError):
        await check_form(site, agent, "text/plain")


async def check_form(site: Site, agent: GoAgent, content_type: str) -> None:
    """Assert that a deploy which does not say that it is JSON has no effect, whatever way it takes in."""
    content = json.dumps({"project_name": "web", "compose_file": WEB}).encode()
    for query in ("", "?wait=0"):
        answer = await site.client.post(f"/deploy{query}", content=content, headers={"Content-Type": content_type})
        assert answer.status_code == 415, answer.text
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert not agent.commands
    assert (await site.get("/jobs"))["jobs"] == []
