"""Promise 5 through the real server: one job a key, from fifty callers at once and over a kill."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.support.app import WEB
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

CALLERS = 50
BODY = {"project_name": "web", "compose_file": WEB}


@pytest.mark.promise("5")
async def test_a_key_makes_one_job_however_many_send_it_and_over_a_kill(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        await one_job(server)


@pytest.mark.control("5")
async def test_without_the_look_up_and_the_index_a_key_makes_many_jobs(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, sabotage="keys_unchecked") as server:
        with pytest.raises(AssertionError, match="jobs of one key"):
            await one_job(server)


async def one_job(server: ServerProcess) -> None:
    """Send one deploy with one key from many callers, kill the server as soon as it is stored, send it again."""
    async with GoAgent(server.ws_url, server.agent_token, "web-1") as agent, server.client() as client:
        await agent.connected()
        callers = [asyncio.create_task(send(client)) for _ in range(CALLERS)]
        async with asyncio.timeout(20):
            while not (await client.get("/jobs")).json()["jobs"]:
                pass
        await server.kill()
        answers = [answer for answer in await asyncio.gather(*callers) if answer is not None]
        await server.start()
        await agent.connected(2)
        again = await asyncio.gather(*(send(client) for _ in range(CALLERS)))
        jobs = {answer["job_id"] for answer in [*answers, *again] if answer is not None}
        listed = {job["id"] for job in (await client.get("/jobs")).json()["jobs"]}
        assert len(listed) == 1, f"{len(listed)} jobs of one key"
        assert jobs == listed
        assert None not in again


async def send(client: httpx.AsyncClient) -> dict[str, object] | None:
    """Return the answer, None if it was lost."""
    try:
        answer = await client.post("/deploy", json=BODY, headers={"Idempotency-Key": "pipeline-1"})
    except httpx.TransportError:
        return None
    assert answer.status_code == 200, answer.text
    document: dict[str, object] = answer.json()
    return document
