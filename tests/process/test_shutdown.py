"""SIGTERM to the real server: what runs may end, whoever waits is answered, and it ends with 0 within its grace."""

import asyncio
import json
import os
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


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server with the grace that it has by default."""
    async with ServerProcess(tmp_path, {"SHUTDOWN_GRACE_SECONDS": None}) as server:
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


async def stopping(server: ServerProcess, client: httpx.AsyncClient) -> asyncio.Task[float]:
    """Begin to stop the server; returns once it says that it is not ready any more."""
    ending = asyncio.create_task(terminate(server))
    async with asyncio.timeout(10):
        while (answer := await client.get("/ready")).status_code == 200:
            pass
    assert answer.json()["code"] == "not_ready"
    return ending


async def test_commands_that_run_are_given_the_grace_to_end_and_whoever_waits_hears_how(patient: ServerProcess) -> None:
    agent = GoAgent(patient.ws_url, patient.agent_token, "web-1", reconnect=False)
    async with agent, patient.client() as client:
        await agent.connected()
        agent.hold("slow")
        held = asyncio.create_task(deploy(client, "slow", wait=300))
        await agent.started(1)
        ending = await stopping(patient, client)
        assert not held.done()
        agent.release("slow")
        assert (await held)["status"] == "completed"
        assert await ending < SOON_SECONDS
    with sqlite3.connect(patient.database_path) as database:
        assert database.execute("SELECT status FROM job").fetchall() == [("completed",)]
        assert database.execute("SELECT status FROM agent").fetchall() == [("offline",)]
    database.close()
    assert agent.closes == [(1012, "the control plane restarts")]


async def test_while_it_drains_deploys_are_accepted_and_sent_by_the_next_process(patient: ServerProcess) -> None:
    async with GoAgent(patient.ws_url, patient.agent_token, "web-1") as agent, patient.client() as client:
        await agent.connected()
        agent.hold("slow")
        await deploy(client, "slow")
        await agent.started(1)
        ending = await stopping(patient, client)
        late = str((await deploy(client, "late"))["job_id"])
        agent.release("slow")
        await ending
        assert len(agent.executions) == 1
        await patient.start()
        assert (await client.get(f"/jobs/{late}", params={"wait": 20})).json()["status"] == "completed"
        assert len(agent.executions) == 2


async def test_an_agent_whose_link_breaks_while_it_drains_comes_back_with_its_answer(patient: ServerProcess) -> None:
    agent, other = [GoAgent(patient.ws_url, patient.agent_token, name) for name in ("web-1", "web-2")]
    async with agent, other, patient.client() as client:
        await agent.connected()
        for each, project in ((agent, "one"), (other, "two")):
            await each.connected()
            each.hold(project)
            await deploy(client, project)  # each goes to the agent with the fewest
            await each.started(1)
        ending = await stopping(patient, client)
        agent.drop()
        await agent.connected(2)
        agent.release("one")
        await agent.answered(agent.executions[0].job_id)
        other.release("two")
        await ending
    with sqlite3.connect(patient.database_path) as database:
        assert database.execute("SELECT status FROM job").fetchall() == [("completed",), ("completed",)]
    database.close()


async def test_it_does_not_wait_for_an_agent_that_is_gone(patient: ServerProcess) -> None:
    async with GoAgent(patient.ws_url, patient.agent_token, "web-1") as agent, patient.client() as client:
        await agent.connected()
        agent.hold("slow")
        await deploy(client, "slow")
        await agent.started(1)
        ending = await stopping(patient, client)
        agent.stop()
        assert await ending < SOON_SECONDS


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_waiting(patient: ServerProcess, second: signal.Signals) -> None:
    async with GoAgent(patient.ws_url, patient.agent_token, "web-1") as agent, patient.client() as client:
        await agent.connected()
        agent.hold("slow")
        held = asyncio.create_task(deploy(client, "slow", wait=300))
        await agent.started(1)
        ending = await stopping(patient, client)
        os.kill(patient.pid, second)
        assert await ending < SOON_SECONDS
        assert (await held)["status"] in {"queued", "in_progress"}


async def test_answers_that_the_database_does_not_take_are_given_up_and_named_when_the_grace_is_over(
    server: ServerProcess,
) -> None:
    async with GoAgent(server.ws_url, server.agent_token, "web-1", reconnect=False) as agent, server.client() as client:
        await agent.connected()
        agent.hold("slow")
        job = str((await deploy(client, "slow"))["job_id"])
        await agent.started(1)
        while (await client.get(f"/jobs/{job}")).json()["status"] == "queued":
            pass
        with sqlite3.connect(server.database_path, isolation_level=None) as database:
            database.execute("BEGIN IMMEDIATE")
            agent.release("slow")
            await agent.answered(job)
            assert await terminate(server) < 25
        database.close()
    given_up = [json.loads(line) for line in server.stderr.splitlines() if "answers_given_up" in line]
    assert [(line["job_ids"], line["count"]) for line in given_up] == [([job], 1)]


async def test_an_agent_that_reads_nothing_does_not_keep_it_alive(server: ServerProcess) -> None:
    stalled = await RawSocket.open(server.ws_url, server.agent_token, "stalled", receive_buffer=4096)
    big = WEB + "".join(f"# {'x' * 100}\n" for _ in range(2_000))
    async with stalled, server.client() as client:
        sent = 0
        try:
            async with asyncio.timeout(40):
                while True:  # until a send has to wait for the agent, and with it the request that caused it
                    body = {"project_name": f"p-{sent}", "compose_file": big}
                    async with asyncio.timeout(5):
                        job = (await client.post("/deploy", json=body)).json()["job_id"]
                    stalled.say(job, "IN_PROGRESS")
                    async with asyncio.timeout(5):
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
