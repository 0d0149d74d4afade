"""While another program holds the database locked, agents stay and their answers wait; nothing is lost."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.app import WEB
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

HELD = 30
LONGEST_ANSWER_SECONDS = 12
"""Twice the five seconds that SQLite waits for a lock, and some for a busy machine."""
LAND_SECONDS = 15


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database locked, as a program does that forgot to commit."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextlib.asynccontextmanager
async def at_work(sabotage: str | None = None) -> AsyncIterator[tuple[ServerProcess, httpx.AsyncClient, GoAgent]]:
    async with (
        ServerProcess(sabotage=sabotage) as server,
        server.client() as client,
        GoAgent(server.ws_url, server.agent_token, "web-1") as agent,
    ):
        await agent.connected()
        yield server, client, agent


async def deploy(client: httpx.AsyncClient, project: str) -> httpx.Response:
    return await client.post("/deploy", json={"project_name": project, "compose_file": WEB})


async def answered_while_locked(server: ServerProcess, client: httpx.AsyncClient, agent: GoAgent) -> list[str]:
    """Have the agent answer for deploys while the database is locked, longer than SQLite waits; return their ids."""
    jobs = []
    for number in range(HELD):
        agent.hold(f"held-{number}")
        jobs.append((await deploy(client, f"held-{number}")).json()["job_id"])
    await agent.started(HELD)
    with locked(server.database_path):
        for number, job in enumerate(jobs):
            agent.release(f"held-{number}")
            await agent.answered(job)
        # What was said first is alone in the first attempt to store; the answers behind it are in the second.
        for _ in range(2):
            await refused_in_good_time(client)
        shown = (await client.get(f"/jobs/{jobs[-1]}")).json()
        assert shown["status"] != "completed", "it is told before it is stored"
    return jobs


async def refused_in_good_time(client: httpx.AsyncClient) -> None:
    """Have more callers wait than one commit takes; every one is told to come again, and none is left waiting."""
    async with asyncio.timeout(LONGEST_ANSWER_SECONDS):
        answers = await asyncio.gather(*(deploy(client, f"late-{number}") for number in range(40)))
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "store_unavailable")}
    assert all(answer.headers["Retry-After"] for answer in answers)


async def check_landed(client: httpx.AsyncClient, jobs: list[str]) -> None:
    async with asyncio.timeout(LAND_SECONDS):
        for job in jobs:
            ended = (await client.get(f"/jobs/{job}", params={"wait": 1})).json()
            assert ended["status"] == "completed", "an answer was lost"


@pytest.mark.promise("20")
async def test_a_locked_database_costs_no_agent_and_no_answer_and_callers_a_503() -> None:
    async with at_work() as (server, client, agent):
        jobs = await answered_while_locked(server, client, agent)
        await check_landed(client, jobs)
        assert agent.connections == 1
        assert (await deploy(client, "afterwards")).status_code == 200
        assert server.stderr.count('"answers_kept"') == 1


@pytest.mark.control("20")
async def test_the_check_finds_answers_that_are_dropped_when_they_cannot_be_stored() -> None:
    async with at_work("answers_dropped") as (server, client, agent):
        jobs = await answered_while_locked(server, client, agent)
        with pytest.raises(AssertionError, match="an answer was lost"):
            await check_landed(client, jobs)
