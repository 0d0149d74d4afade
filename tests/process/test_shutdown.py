"""SIGTERM to the real server: whoever waits is answered, what agents just say is stored, and it ends with 0 soon."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.app import WEB
from tests.support.go_agent import GoAgent
from tests.support.raw_socket import RawSocket
from tests.support.server import ServerProcess

SOON_SECONDS = 6


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path) as server:
        yield server


async def deploy(client: httpx.AsyncClient, project: str, **params: float) -> dict[str, object]:
    answer = await client.post("/deploy", json={"project_name": project, "compose_file": WEB}, params=params)
    assert answer.status_code == 200, answer.text
    document: dict[str, object] = answer.json()
    return document


async def terminate(server: ServerProcess) -> float:
    """Stop the server; return how many seconds that took, after checking that it ended as wanted."""
    clock = asyncio.get_running_loop().time
    began = clock()
    assert await server.terminate() == 0, server.output
    assert "Traceback" not in server.stderr, server.output
    return clock() - began


async def test_held_requests_are_answered_with_the_job_as_it_stands(server: ServerProcess) -> None:
    async with GoAgent(server.ws_url, server.agent_token, "web-1") as agent, server.client() as client:
        await agent.connected()
        agent.hold("slow")
        deploying = asyncio.create_task(deploy(client, "slow", wait=300))
        await agent.started(1)
        job = agent.executions[0].job_id
        held = [asyncio.create_task(client.get(f"/jobs/{job}", params={"wait": 300})) for _ in range(50)]
        await client.get("/health")  # answered after those before it have begun to wait
        assert await terminate(server) < SOON_SECONDS
        assert (await deploying)["status"] == "in_progress"
        answers = [(await request) for request in held]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["status"] for answer in answers} == {"in_progress"}
        await server.start()
        await agent.connected(2)
        agent.release("slow")
        assert (await client.get(f"/jobs/{job}", params={"wait": 20})).json()["status"] == "completed"
        assert len([run for run in agent.executions if run.job_id == job]) == 1


async def test_an_answer_that_comes_in_the_moment_of_the_stop_is_stored(server: ServerProcess) -> None:
    async with GoAgent(server.ws_url, server.agent_token, "web-1", reconnect=False) as agent, server.client() as client:
        await agent.connected()
        agent.hold("slow")
        job = str((await deploy(client, "slow"))["job_id"])
        await agent.received(job)
        held = asyncio.create_task(client.get(f"/jobs/{job}", params={"wait": 300}))
        stopping = asyncio.create_task(terminate(server))
        await held  # is answered because the server has begun to stop
        agent.release("slow")
        assert (await agent.answered(job)).status == "COMPLETED"
        assert await stopping < SOON_SECONDS
        with sqlite3.connect(server.database_path) as database:
            assert database.execute("SELECT status FROM job").fetchall() == [("completed",)]
            assert database.execute("SELECT status FROM agent").fetchall() == [("offline",)]
        database.close()
        assert agent.closes[0][0] == 1012


async def test_it_is_not_ready_and_admits_no_agent_while_it_drains_and_its_agents_come_back(
    server: ServerProcess,
) -> None:
    async with GoAgent(server.ws_url, server.agent_token, "web-1") as agent, server.client() as client:
        await agent.connected()
        agent.hold("slow")
        job = str((await deploy(client, "slow"))["job_id"])
        await agent.received(job)
        held = asyncio.create_task(client.get(f"/jobs/{job}", params={"wait": 300}))
        stopping = asyncio.create_task(terminate(server))
        await held
        try:
            ready = await client.get("/ready")
            assert ready.status_code == 503
            queued = await deploy(client, "late")
        except httpx.TransportError:
            queued = {}  # the port was closed already, which balancers take for the same
        await stopping
        await server.start()
        await agent.connected(2)
        agent.release("slow")
        for each in [job, queued.get("job_id", job)]:
            assert (await client.get(f"/jobs/{each}", params={"wait": 20})).json()["status"] == "completed"


async def test_an_agent_that_reads_nothing_does_not_keep_it_alive(server: ServerProcess) -> None:
    stalled = await RawSocket.open(server.ws_url, server.agent_token, "stalled", receive_buffer=4096)
    big = WEB + "".join(f"# {'x' * 100}\n" for _ in range(2_000))
    async with stalled, server.client() as client:
        sent = 0
        try:
            async with asyncio.timeout(20):
                while True:  # until a send has to wait for the agent, and with it the request that caused it
                    body = {"project_name": f"p-{sent}", "compose_file": big}
                    async with asyncio.timeout(2):
                        job = (await client.post("/deploy", json=body)).json()["job_id"]
                    stalled.say(job, "IN_PROGRESS")
                    async with asyncio.timeout(2):
                        while (await client.get(f"/jobs/{job}")).json()["status"] != "in_progress":
                            pass
                    sent += 1
        except TimeoutError:
            assert sent > 2
        assert await terminate(server) < SOON_SECONDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_without_anything_to_do_it_ends_at_once(server: ServerProcess, number: signal.Signals) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    assert await server.terminate(number) == 0
    assert clock() - began < 2
