"""The real control plane inside a test: its app with its lifespan under uvicorn, on a database of its own.

Used by the tests of `api/`. The server shares the test's event loop, so that a test can drive it over HTTP,
connect agents to it, and still look at `plane`. Every answer that a test gets is checked against the OpenAPI
document (`tests.support.contract`).
"""

import contextlib
import functools
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from control_plane.config import Settings
from control_plane.connections import HttpProtocol
from control_plane.core.tokens import TokenChecker
from control_plane.main import create_app
from control_plane.operations.context import ControlPlane
from control_plane.secrets import Secrets
from control_plane.ws.socket import AgentSocketProtocol
from tests.support.contract import Contract
from tests.support.go_agent import GoAgent
from tests.support.served import served

API_TOKEN = "api-token-of-the-tests"
AGENT_TOKEN = "agent-token-of-the-tests"
WEB = "services:\n  web:\n    image: nginx:alpine\n"

Answer = dict[str, Any]


@dataclass
class Site:
    """A running control plane, a client that holds its token, and the agents that a test connects."""

    app: FastAPI
    url: str
    client: httpx.AsyncClient
    agents: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def plane(self) -> ControlPlane:
        plane: ControlPlane = self.app.state.control_plane
        return plane

    async def agent(self, hostname: str = "host-1", token: str = AGENT_TOKEN, **options: Any) -> GoAgent:
        """Return a connected agent of this name; it is stopped when the test ends."""
        agent = GoAgent(self.url.replace("http", "ws") + "/ws", token, hostname, **options)
        await self.agents.enter_async_context(agent)
        await agent.connected()
        return agent

    async def offline_agent(self, hostname: str = "host-1") -> GoAgent:
        """Return an agent that has been here and whose network is down, once the control plane knows."""
        agent = await self.agent(hostname)
        await self.unplug(agent)
        return agent

    async def unplug(self, agent: GoAgent) -> None:
        """Take an agent's network down; returns once the API shows it offline."""
        path = f"/agents/{await self.id_of(agent)}"
        agent.unplug()
        while (await self.get(path))["status"] == "online":
            pass

    async def id_of(self, agent: GoAgent) -> int:
        """Return the id that the control plane gave to an agent."""
        agents = (await self.get("/agents"))["agents"]
        return next(int(row["id"]) for row in agents if row["hostname"] == agent.hostname)

    async def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a GET that succeeds."""
        response = await self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, body: Any = None, **params: Any) -> Answer:
        """Return the JSON of a POST that succeeds."""
        response = await self.client.post(path, json=body, params=params)
        assert response.status_code == 200, response.text
        answer: Answer = response.json()
        return answer

    async def deploy(self, project: str, *, wait: float = 30, file: str = WEB, **fields: Any) -> Answer:
        """Return the answer to a deploy that is accepted, by default once it is over."""
        return await self.post("/deploy", {"project_name": project, "compose_file": file, **fields}, wait=wait)

    async def stored(self) -> dict[str, Any]:
        """Return everything that users can list, to compare what was there before and after."""
        return {
            "deployments": (await self.get("/deployments"))["deployments"],
            "jobs": (await self.get("/jobs"))["jobs"],
            "projects": [_without_agents(project) for project in (await self.get("/projects"))["projects"]],
        }


def _without_agents(project: Answer) -> Answer:
    # When an agent was last heard changes by itself.
    places = [{**place, "agent": place["agent"]["id"]} for place in project["agents"]]
    return {**project, "agents": places}


@contextlib.asynccontextmanager
async def running_site(database: Path, *, migrated: Path | None = None, **settings: Any) -> AsyncIterator[Site]:
    """Run the control plane on `database`, with `settings` over the defaults.

    `migrated`: an empty database with today's schema, copied to save each test the migrations.
    """
    if migrated is not None:
        shutil.copy(migrated, database)
    app = make_app(database, **settings)
    async with _served(app) as url, client_with(url, API_TOKEN) as client:
        site = Site(app, url, client)
        async with site.agents:
            yield site


def client_with(url: str, token: str) -> httpx.AsyncClient:
    """Return a client that presents `token` and holds every answer to the OpenAPI document."""
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {token}"},
        event_hooks={"response": [contract().check]},
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        timeout=60,
        trust_env=False,
        verify=False,  # noqa: S501 - there is no TLS here, and loading the CA bundle takes longer than a test
    )


@functools.cache
def contract() -> Contract:
    """Return what the app's OpenAPI document promises; making it takes as long as a test, and no setting changes it."""
    return Contract(make_app(Path("never-opened.db")).openapi())


def make_app(database: Path, **settings: Any) -> FastAPI:
    """Return the app as run.py makes it, with tokens that tests know."""
    # A test must not depend on the developer's own settings.
    values = Settings.model_construct(**{**_defaults(), "database_url": f"sqlite:///{database}", **settings})
    agent = TokenChecker.of_plain(AGENT_TOKEN) if values.agents_share_a_secret else None
    secrets = Secrets(agent=agent, api=TokenChecker.of_plain(API_TOKEN))
    return create_app(values, secrets)


def _defaults() -> dict[str, Any]:
    values = {name: each.get_default(call_default_factory=True) for name, each in Settings.model_fields.items()}
    # Tests count what agents are sent, and walk all doors without a token; those of these settings set them.
    return {**values, "health_check_interval_seconds": 0, "max_failed_tokens_per_minute": 1_000_000}


@contextlib.asynccontextmanager
async def _served(app: FastAPI) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws=AgentSocketProtocol,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    async with served(config) as (host, port):
        yield f"http://{host}:{port}"
