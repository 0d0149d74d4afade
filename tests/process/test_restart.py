"""Restarts of the real server while work is under way: nothing is declared lost, nothing runs again, both agents."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.agent_harness import TOKEN, AgentProcess
from tests.support.app import WEB
from tests.support.docker_stand_in import StandInDocker
from tests.support.server import ServerProcess


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    directory = tmp_path / "server"
    directory.mkdir()
    async with ServerProcess(directory, {"AGENT_SECRET_TOKEN": TOKEN}) as server:
        yield server


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[StandInDocker]:
    docker = StandInDocker(tmp_path / "docker")
    yield docker
    docker.close()


@pytest.fixture
async def agent(server: ServerProcess, docker: StandInDocker, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """The real Python agent, connected."""
    directory = tmp_path / "agent"
    directory.mkdir()
    agent = AgentProcess(server.ws_url, str(docker.path), directory)
    await agent.start()
    yield agent
    await agent.close()


async def online(client: httpx.AsyncClient) -> int:
    """Wait for an agent to be connected; return its id."""
    async with asyncio.timeout(20):
        while True:
            agents = (await client.get("/agents", params={"status": "online"})).json()["agents"]
            if agents:
                return int(agents[0]["id"])


async def deploy(client: httpx.AsyncClient, project: str) -> str:
    answer = await client.post("/deploy", json={"project_name": project, "compose_file": WEB})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


async def over(client: httpx.AsyncClient, job: str) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get(f"/jobs/{job}", params={"wait": 25})).json()
    assert document["status"] in {"completed", "failed"}, document
    return document


async def test_the_python_agents_answer_from_while_the_server_was_dead_counts(
    server: ServerProcess, client: httpx.AsyncClient, docker: StandInDocker, agent: AgentProcess
) -> None:
    gate = docker.fifo("gate")
    docker.on("up", f"echo started; read go < {gate.path}; echo finished")
    await online(client)
    job = await deploy(client, "web")
    async with asyncio.timeout(20):
        while "started" not in (await client.get(f"/jobs/{job}")).json()["logs"]:
            pass
    await server.kill()
    gate.release()
    await agent.logged(f"Job '{job}' (DEPLOY_COMPOSE): COMPLETED")
    await server.start()
    ended = await over(client, job)
    # Whether it was asked for again depends on which came first, its answer or the question.
    assert ended["status"] == "completed"
    assert ended["logs"].endswith("started\nfinished\n")
    assert len(docker.calls("up")) == 1


async def test_a_command_that_the_killed_python_agent_was_running_is_ended_by_its_next_process(
    server: ServerProcess, client: httpx.AsyncClient, docker: StandInDocker, agent: AgentProcess
) -> None:
    gate = docker.fifo("gate")
    docker.on("up", f"echo started; read go < {gate.path}; echo finished")
    await online(client)
    job = await deploy(client, "web")
    async with asyncio.timeout(20):
        while "started" not in (await client.get(f"/jobs/{job}")).json()["logs"]:
            pass
    await agent.stop(signal.SIGKILL)
    docker.on("up", "echo again")
    gate.release()
    await agent.start()
    ended = await over(client, job)
    assert ended["status"] == "completed", ended
    assert ended["attempt"] == 2
    assert len(docker.calls("up")) == 2
