"""A page of another origin, in a real browser, that knows the tokens: it reads nothing and changes nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.app import WEB
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.caller import Caller, calling
from tests.support.evil_page import visit
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

pytestmark = NEEDS_CHROMIUM

OPEN = {"API_AUTH": "none"}
"""The API needs no token, on loopback: what a developer runs, in whose browser that page is."""
EVIL = {"project_name": "evil", "compose_file": WEB}


@asynccontextmanager
async def attacked(server: ServerProcess) -> AsyncIterator[tuple[Caller, GoAgent]]:
    """A caller and an agent, on which the project `web` runs."""
    async with GoAgent(server.ws_url, server.agent_token, "web-1") as agent, calling(server) as caller:
        await agent.connected()
        await caller.post("/deploy", {"project_name": "web", "compose_file": WEB}, wait=20)
        yield caller, agent


async def stored(caller: Caller) -> dict[str, Any]:
    """Return everything that a page could have changed."""
    agents = (await caller.get("/agents"))["agents"]
    return {
        "agents": [(agent["hostname"], agent["status"]) for agent in agents],
        "jobs": (await caller.get("/jobs"))["jobs"],
        "deployments": (await caller.get("/deployments"))["deployments"],
    }


async def check_page(server: ServerProcess) -> None:
    """Assert that a page which tries everything has read, connected and changed nothing."""
    async with attacked(server) as (caller, agent):
        before, commands = await stored(caller), list(agent.commands)
        seen = await visit(server.url, server.api_token, server.agent_token, EVIL)
        assert seen.pop("socket") == seen.pop("socket with the secret") == "refused"
        assert {name for name, told in seen.items() if told not in {"sent", "stopped"}} == set()
        assert {name for name in seen if "read" in name and seen[name] != "stopped"} == set()
        assert server.stderr.count('"event": "agent_refused"') == 2, "the page did not get as far as the handshake"
        assert [command.type for command in agent.commands] == [command.type for command in commands]
        assert await stored(caller) == before


@pytest.mark.promise("browsers")
async def test_a_hostile_page_that_knows_the_tokens_gets_nowhere() -> None:
    async with ServerProcess() as server:
        await check_page(server)


@pytest.mark.promise("browsers")
async def test_a_hostile_page_gets_nowhere_with_an_api_that_needs_no_token() -> None:
    async with ServerProcess(env=OPEN) as server:
        await check_page(server)


@pytest.mark.control("browsers")
async def test_without_a_check_of_the_origin_a_page_would_stop_projects() -> None:
    async with ServerProcess(env=OPEN, sabotage="other_origins_served") as server:
        with pytest.raises(AssertionError, match="STOP_COMPOSE"):
            await check_page(server)
        async with server.client() as client:
            projects = {job["project_name"] for job in (await client.get("/jobs")).json()["jobs"]}
            assert projects == {"web"}, "a deploy must still say that it is JSON, which no page may without asking"
