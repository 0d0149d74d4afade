"""A deploy whose agent or control plane goes away in the middle still ends, and ends with the truth."""

import httpx
import pytest

from tests.e2e import stacks
from tests.e2e.agent_process import AgentProcess
from tests.support.docker import Events
from tests.support.server import ServerProcess

pytestmark = pytest.mark.docker


async def test_an_agent_killed_in_the_middle_of_a_deploy_and_started_again_reports_the_deploy_that_runs(
    api: httpx.AsyncClient, agent: AgentProcess, project: str, web_image: str, events: Events
) -> None:
    job = await stacks.deploy(api, project, stacks.gated(web_image, "after the crash"), wait=0)
    await events.until("start", service="gate")

    await agent.kill()
    await agent.start()
    await stacks.open_gate(project)

    ended = await stacks.finished_job(api, job["job_id"])
    assert ended["status"] == "completed", ended
    assert (await stacks.deployment(api, job["deployment_id"]))["status"] == "running"
    assert await stacks.fetch_page(api, project, events) == "after the crash"


@pytest.mark.parametrize("deploy_ends", ["while it is away", "after it is back"])
@pytest.mark.parametrize("way", ["asked to stop", "killed"])
async def test_a_control_plane_restarted_in_the_middle_of_a_deploy_still_gets_its_result(
    server: ServerProcess,
    agent: AgentProcess,
    project: str,
    web_image: str,
    events: Events,
    way: str,
    deploy_ends: str,
) -> None:
    async with server.client() as api:
        job = await stacks.deploy(api, project, stacks.gated(web_image, "after the restart"), wait=0)
        await events.until("start", service="gate")

    agent.forget_connection()
    await (server.terminate() if way == "asked to stop" else server.kill())
    if deploy_ends == "while it is away":
        await stacks.open_gate(project)
        await events.until("start")
    await server.start()
    await agent.until_connected()
    if deploy_ends == "after it is back":
        await stacks.open_gate(project)

    async with server.client() as api:
        ended = await stacks.finished_job(api, job["job_id"])
        assert ended["status"] == "completed", ended
        # The agent is asked again for what is open, and answers without running it twice.
        assert agent.output.count(f"Job '{job['job_id']}' (DEPLOY_COMPOSE): COMPLETED") == 1
        assert (await stacks.deployment(api, job["deployment_id"]))["status"] == "running"
        assert await stacks.fetch_page(api, project, events) == "after the restart"
