"""Deploys whose callers are gone before the answer: what was stored is carried out."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.app import WEB
from tests.support.caller import Caller, Document, calling
from tests.support.faults import chance
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

LEAVERS = 40


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path) as server:
        yield server


@pytest.fixture
async def agent(server: ServerProcess) -> AsyncIterator[GoAgent]:
    async with GoAgent(server.ws_url, server.agent_token, "web-1") as agent:
        await agent.connected()
        yield agent


@pytest.fixture
async def caller(server: ServerProcess) -> AsyncIterator[Caller]:
    async with calling(server) as caller:
        yield caller


async def deploy_and_leave(server: ServerProcess, project: str, after_seconds: float) -> None:
    """Send a deploy over a connection of its own and reset that a moment later, whatever was answered."""
    where = urlsplit(server.url)
    _, writer = await asyncio.open_connection(where.hostname, where.port)
    body = json.dumps({"project_name": project, "compose_file": WEB}).encode()
    head = f"POST /deploy HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {server.api_token}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    await asyncio.sleep(after_seconds)
    writer.transport.abort()


async def stored_jobs(caller: Caller, count: int) -> list[Document]:
    """Return the jobs once there are so many."""
    async with asyncio.timeout(20):
        while len(jobs := (await caller.get("/jobs"))["jobs"]) < count:
            pass
    return list(jobs)


async def test_a_deploy_whose_caller_leaves_at_any_moment_is_carried_out(
    server: ServerProcess, agent: GoAgent, caller: Caller
) -> None:
    choices = chance()
    moments = [choices.uniform(0, 0.03) for _ in range(LEAVERS)]
    await asyncio.gather(*(deploy_and_leave(server, f"p-{n}", moment) for n, moment in enumerate(moments)))
    for job in await stored_jobs(caller, LEAVERS):
        assert (await caller.over(job["id"]))["status"] == "completed"
    assert len(agent.executions) == LEAVERS
