"""Deadlines in the real server: whatever an agent does or fails to do, its job ends in time and says why."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.app import WEB
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Outcome
from tests.support.server import ServerProcess

LATE_SECONDS = 5.0
SHORT = {
    "DEPLOY_TIMEOUT_SECONDS": "1",
    "STOP_TIMEOUT_SECONDS": "1",
    "QUERY_TIMEOUT_SECONDS": "1",
    "QUEUE_TIMEOUT_SECONDS": "1",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("deadlines")
    async with ServerProcess(directory, SHORT) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def agent(server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[GoAgent]:
    async with GoAgent(server.ws_url, server.agent_token, request.node.name[:60]) as agent:
        await agent.connected()
        yield agent


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.promise("9")]


async def own_id(client: httpx.AsyncClient, agent: GoAgent) -> int:
    agents = (await client.get("/agents")).json()["agents"]
    return next(int(row["id"]) for row in agents if row["hostname"] == agent.hostname)


async def deploy(client: httpx.AsyncClient, agent: GoAgent, **fields: Any) -> str:
    body = {"project_name": "web", "compose_file": WEB, "agent_id": await own_id(client, agent), **fields}
    answer = await client.post("/deploy", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


async def failed(client: httpx.AsyncClient, job: str) -> dict[str, Any]:
    """Return a job that failed by its deadline, after checking that it was in time."""
    ended: dict[str, Any] = (await client.get(f"/jobs/{job}", params={"wait": 20})).json()
    assert ended["status"] == "failed", ended
    late = datetime.fromisoformat(ended["finished_at"]) - datetime.fromisoformat(ended["deadline_at"])
    assert 0 <= late.total_seconds() < LATE_SECONDS
    assert ended["error"]
    return ended


async def test_a_connected_agent_that_stays_silent_ends_the_job_with_execution_timeout(
    client: httpx.AsyncClient, agent: GoAgent
) -> None:
    agent.hold("web")
    job = await deploy(client, agent)
    ended = await failed(client, job)
    assert ended["reason"] == "execution_timeout"
    deployment = (await client.get(f"/deployments/{ended['deployment_id']}")).json()
    assert deployment["status"] == "failed"
    agent.release("web")
    assert (await agent.answered(job)).status == "COMPLETED"
    probe = (await client.post(f"/agents/{ended['agent_id']}/health-check")).json()
    assert probe["status"] == "completed"
    assert (await client.get(f"/jobs/{job}")).json() == ended
    assert (await client.get(f"/deployments/{ended['deployment_id']}")).json() == deployment


async def test_an_agent_that_vanished_with_the_command_ends_it_with_agent_lost(
    client: httpx.AsyncClient, agent: GoAgent
) -> None:
    agent.hold("web")
    job = await deploy(client, agent)
    await agent.received(job)
    agent.unplug()
    ended = await failed(client, job)
    assert ended["reason"] == "agent_lost"
    agent.release("web")
    agent.plug_in()
    await agent.connected(2)
    await agent.say(job, Outcome(logs="late"))
    assert (await client.post(f"/agents/{ended['agent_id']}/health-check")).json()["status"] == "completed"
    assert (await client.get(f"/jobs/{job}")).json() == ended


async def test_what_waits_for_an_agent_that_stays_away_ends_with_delivery_timeout(
    client: httpx.AsyncClient, agent: GoAgent
) -> None:
    agent.unplug()
    agent_id = await own_id(client, agent)
    async with asyncio.timeout(10):
        while (await client.get(f"/agents/{agent_id}")).json()["status"] != "offline":
            pass
    job = await deploy(client, agent, when_offline="queue")
    ended = await failed(client, job)
    assert (ended["reason"], ended["attempt"]) == ("delivery_timeout", 0)
    agent.plug_in()
    await agent.connected(2)
    assert (await client.post(f"/agents/{agent_id}/health-check")).json()["status"] == "completed"
    assert [run.job_id for run in agent.executions if run.type == "DEPLOY_COMPOSE"] == []


async def test_a_silent_question_and_a_silent_stop_end_too(client: httpx.AsyncClient, agent: GoAgent) -> None:
    first = await deploy(client, agent)
    assert (await client.get(f"/jobs/{first}", params={"wait": 20})).json()["status"] == "completed"
    agent.hold("web")
    agent_id = await own_id(client, agent)
    stop = await client.post("/projects/web/stop", json={"agent_id": agent_id})
    assert stop.status_code == 200, stop.text
    ended = await failed(client, stop.json()["job_id"])
    assert (ended["reason"], ended["command_type"]) == ("execution_timeout", "STOP_COMPOSE")
    deployment = (await client.get(f"/deployments/{ended['deployment_id']}")).json()
    assert deployment["status"] == "running"
    assert deployment["last_error"] == ended["error"]


async def test_a_request_may_give_more_time_than_the_settings(client: httpx.AsyncClient, agent: GoAgent) -> None:
    agent.hold("web")
    job = await deploy(client, agent, timeout_seconds=10)
    first = (await client.get(f"/jobs/{job}", params={"wait": 3})).json()
    assert first["status"] == "in_progress"
    agent.release("web")
    assert (await client.get(f"/jobs/{job}", params={"wait": 20})).json()["status"] == "completed"
