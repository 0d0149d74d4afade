"""Jobs: following one to its end, listing all in pages, and taking back what was not sent."""

import asyncio
from typing import Any

import pytest

from control_plane.core.logs import MAX_LOG_BYTES
from tests.support.app import WEB, Answer, Site
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Command, Outcome
from tests.support.problem_app import checked

NOBODYS = "01a209fb-c730-735a-bcc1-eea7d4ab715a"


async def queued_deploy(site: Site, agent: GoAgent, project: str = "web") -> Answer:
    """Deploy to an agent that is offline."""
    agent_id = await site.id_of(agent)
    return await site.deploy(project, wait=0, agent_id=agent_id, when_offline="queue")


async def test_a_job_tells_all_about_itself(site: Site, agent: GoAgent) -> None:
    answer = await site.deploy("web")
    job = await site.get(f"/jobs/{answer['job_id']}")
    assert (job["command_type"], job["project_name"], job["status"]) == ("DEPLOY_COMPOSE", "web", "completed")
    assert (job["agent_id"], job["deployment_id"]) == (answer["agent_id"], answer["deployment_id"])
    assert (job["attempt"], job["timeout_seconds"], job["reason"], job["error"]) == (1, 900, None, None)
    assert job["created_at"] <= job["sent_at"] <= job["finished_at"] <= job["deadline_at"]
    assert job["logs"] == answer["logs"]


async def test_waiting_ends_as_soon_as_the_job_is_over(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    job_id = (await site.deploy("web", wait=0))["job_id"]
    await agent.started(1)
    waiting = asyncio.create_task(site.get(f"/jobs/{job_id}", wait=300))
    before = await site.get(f"/jobs/{job_id}", wait=0.05)
    assert before["status"] in {"queued", "in_progress"}
    agent.release("web")
    job = await asyncio.wait_for(waiting, 4)  # less than the 5 s after which the store is read again
    assert job["status"] == "completed"


async def test_hundreds_may_wait_while_other_requests_stay_quick(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    job_id = (await site.deploy("web", wait=0))["job_id"]
    waiting = [asyncio.create_task(site.get(f"/jobs/{job_id}", wait=300)) for _ in range(200)]
    await agent.started(1)
    async with asyncio.timeout(10):
        for number in range(5):
            await site.deploy(f"other-{number}")
    assert not any(task.done() for task in waiting)
    agent.release("web")
    assert {job["status"] for job in await asyncio.gather(*waiting)} == {"completed"}


async def test_waiting_for_a_job_that_is_over_answers_at_once(site: Site, agent: GoAgent) -> None:
    job_id = (await site.deploy("web"))["job_id"]
    async with asyncio.timeout(4):
        assert (await site.get(f"/jobs/{job_id}", wait=300))["status"] == "completed"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("job_id", [NOBODYS, "nonsense", "%00", "%2e%2e", "%F0%9F%9A%80", "x" * 200])
async def test_a_job_that_does_not_exist_is_404(site: Site, method: str, job_id: str) -> None:
    path = f"/jobs/{job_id}/cancel" if method == "POST" else f"/jobs/{job_id}"
    checked(await site.client.request(method, path), 404, "job_not_found")


async def test_an_id_longer_than_any_is_refused(site: Site) -> None:
    checked(await site.client.get(f"/jobs/{'x' * 201}"), 422, "invalid_input")


@pytest.mark.parametrize("wait", ["-0.1", "300.1", "nan", "x"])
async def test_a_wait_that_is_not_valid_is_refused(site: Site, wait: str) -> None:
    problem = checked(await site.client.get("/jobs/any", params={"wait": wait}), 422, "invalid_input")
    assert problem.fields[0].field == "wait"


async def test_pages_hold_each_job_once_though_new_ones_arrive(site: Site, agent: GoAgent) -> None:
    old = [(await site.deploy(f"p{number}", wait=0))["job_id"] for number in range(7)]
    seen: list[str] = []
    page: Answer = {"next_cursor": None}
    while not seen or page["next_cursor"]:
        params = {"cursor": page["next_cursor"]} if seen else {}
        page = await site.get("/jobs", limit=3, **params)
        seen += [job["id"] for job in page["jobs"]]
        await site.deploy(f"late-{len(seen)}", wait=0)
    assert seen == old[::-1]
    assert all("logs" not in job for job in page["jobs"])


async def test_a_page_that_holds_the_rest_exactly_is_the_last(site: Site, agent: GoAgent) -> None:
    for number in range(2):
        await site.deploy(f"p{number}", wait=0)
    assert (await site.get("/jobs", limit=2))["next_cursor"] is None
    assert (await site.get("/jobs", limit=1))["next_cursor"] is not None


async def test_jobs_are_filtered_by_project_agent_and_status(site: Site, agent: GoAgent) -> None:
    other = await site.agent("host-2")
    other_id = await site.id_of(other)
    web = (await site.deploy("web"))["job_id"]
    agent.fail("bad", "no")
    bad = (await site.deploy("bad", agent_id=await site.id_of(agent)))["job_id"]
    other.hold("long")
    long = (await site.deploy("long", wait=0, agent_id=other_id))["job_id"]
    await other.started(1)

    async def ids(**filters: Any) -> list[str]:
        return [job["id"] for job in (await site.get("/jobs", **filters))["jobs"]]

    assert await ids() == [long, bad, web]
    assert await ids(project="web") == [web]
    assert await ids(agent_id=other_id) == [long]
    assert await ids(status="failed") == [bad]
    assert await ids(status="completed") == [web]
    assert await ids(status="failed", project="web") == []
    assert await ids(status="queued") + await ids(status="in_progress") == [long]
    assert await ids(project="nobody's", agent_id=2**63 - 1) == []
    other.release("long")


@pytest.mark.parametrize(
    "params",
    [
        {"cursor": "nonsense"},
        {"cursor": ""},
        {"cursor": "\0"},
        {"cursor": "é" * 20},
        {"cursor": "1"},
        {"cursor": NOBODYS.upper()},
        {"limit": 0},
        {"limit": 1001},
        {"agent_id": 0},
        {"agent_id": 2**63},
        {"status": "done"},
        {"project": "x" * 1001},
    ],
)
async def test_a_filter_or_cursor_that_is_not_valid_is_named(site: Site, params: dict[str, Any]) -> None:
    problem = checked(await site.client.get("/jobs", params=params), 422, "invalid_input")
    assert [field.field for field in problem.fields] == list(params)


async def test_a_job_that_was_not_sent_can_be_taken_back(site: Site) -> None:
    agent = await site.offline_agent()
    answer = await queued_deploy(site, agent)
    waiting = asyncio.create_task(site.get(f"/jobs/{answer['job_id']}", wait=300))
    job = await site.post(f"/jobs/{answer['job_id']}/cancel")
    assert (job["status"], job["reason"]) == ("failed", "canceled")
    assert (await asyncio.wait_for(waiting, 4))["reason"] == "canceled"
    assert (await site.get(f"/deployments/{answer['deployment_id']}"))["status"] == "failed"
    agent.plug_in()
    await agent.connected(2)
    await site.deploy("other")
    assert [run.project for run in agent.executions] == ["other"]


async def test_a_job_behind_another_of_its_project_can_be_taken_back(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    first = await site.deploy("web", wait=0)
    await agent.started(1)
    second = await site.deploy("web", wait=0)
    assert (await site.post(f"/jobs/{second['job_id']}/cancel"))["reason"] == "canceled"
    agent.release("web")
    assert (await site.get(f"/jobs/{first['job_id']}", wait=30))["status"] == "completed"
    await site.deploy("web")
    assert len(agent.executions) == 2


async def test_a_job_that_was_sent_cannot_be_taken_back_and_says_what_to_do(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    job_id = (await site.deploy("web", wait=0))["job_id"]
    await agent.started(1)
    problem = checked(await site.client.post(f"/jobs/{job_id}/cancel"), 409, "job_already_sent")
    assert "POST /projects/web/stop" in problem.detail
    agent.release("web")
    assert (await site.get(f"/jobs/{job_id}", wait=30))["status"] == "completed"


async def test_a_job_that_is_over_cannot_be_taken_back(site: Site, agent: GoAgent) -> None:
    job_id = (await site.deploy("web"))["job_id"]
    assert "completed" in checked(await site.client.post(f"/jobs/{job_id}/cancel"), 409, "job_finished").detail
    queued = await queued_deploy(site, await site.offline_agent("host-2"), "other")
    await site.post(f"/jobs/{queued['job_id']}/cancel")
    problem = checked(await site.client.post(f"/jobs/{queued['job_id']}/cancel"), 409, "job_finished")
    assert "failed" in problem.detail


async def test_a_job_that_waits_for_its_agent_too_long_says_so(site: Site) -> None:
    agent = await site.offline_agent()
    object.__setattr__(site.plane.limits, "queue_seconds", 0)
    answer = await queued_deploy(site, agent)
    job = await site.get(f"/jobs/{answer['job_id']}", wait=10)
    assert (job["status"], job["reason"]) == ("failed", "delivery_timeout")
    assert "nothing was done" in job["error"]


async def test_control_characters_of_an_agent_reach_nobody(site: Site, agent: GoAgent) -> None:
    async def work(command: Command) -> Outcome:
        return Outcome.failed("no\x1b[2J", logs="a\x00b\x1b[31mc\td\n")

    agent.work = work
    job = await site.deploy("web")
    assert not {character for text in (job["logs"], job["error"]) for character in text if character in "\x00\x1b"}
    assert "\td\n" in job["logs"]


async def test_a_very_long_log_is_kept_within_its_bound(site: Site, agent: GoAgent) -> None:
    async def work(command: Command) -> Outcome:
        return Outcome(logs="first line\n" + "x" * 2 * MAX_LOG_BYTES + "\nlast line")

    agent.work = work
    logs = (await site.deploy("web"))["logs"]
    assert "first line" in logs
    assert logs.endswith("last line")
    assert len(logs.encode()) <= MAX_LOG_BYTES


async def test_what_was_deployed_is_not_in_a_jobs_answer(site: Site, agent: GoAgent) -> None:
    job_id = (await site.deploy("web", file=WEB + "    environment: {KEY: s3cret-canary}\n"))["job_id"]
    assert "s3cret-canary" not in (await site.client.get(f"/jobs/{job_id}")).text
