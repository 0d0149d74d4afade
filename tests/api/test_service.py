"""What is told without a token: which service this is, that it lives, and whether it is ready."""

import asyncio

import httpx
import pytest

from control_plane import __version__
from control_plane.loops.supervisor import Loop, Supervisor
from tests.support.app import Site
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked

PUBLIC = ("/", "/health", "/ready", "/docs", "/openapi.json", "/install.sh", "/cloud-init.yaml", "/agent.pyz")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
async def test_the_public_routes_need_no_token(site: Site, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, verify=False) as client:  # noqa: S501
        for path in PUBLIC:
            assert (await client.get(path, headers=headers)).status_code == 200


async def test_the_service_tells_its_name_and_version(site: Site) -> None:
    told = await site.get("/")
    assert (told["version"], told["status"]) == (__version__, "running")
    assert "InstaDeploy" in told["service"]


async def test_health_counts_the_connected_agents(site: Site) -> None:
    assert await site.get("/health") == {"status": "healthy", "connected_agents": 0, "unresponsive_agents": 0}
    await site.agent("host-1")
    await site.agent("host-2")
    assert (await site.get("/health"))["connected_agents"] == 2


async def test_it_is_ready_once_it_has_started(site: Site) -> None:
    assert await site.get("/ready") == {"status": "ready"}


async def test_it_is_not_ready_while_it_shuts_down_but_lives(site: Site) -> None:
    site.plane.draining = True
    assert "shutting down" in checked(await site.client.get("/ready"), 503, "not_ready").detail
    assert (await site.get("/health"))["status"] == "healthy"


async def test_whoever_waits_is_answered_when_it_closes(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    job_id = (await site.deploy("web", wait=0))["job_id"]
    await agent.started(1)
    site.plane.closing = True
    async with asyncio.timeout(4):
        assert (await site.get(f"/jobs/{job_id}", wait=300))["status"] in {"queued", "in_progress"}


async def test_it_is_not_ready_while_a_loop_has_not_succeeded_for_long(site: Site) -> None:
    now = 1000.0

    async def run_once() -> None:
        raise AssertionError("it is never started")

    site.app.state.supervisor = Supervisor([Loop("deadlines", 1.0, run_once)], lambda: now)
    assert await site.get("/ready") == {"status": "ready"}
    now += 31
    assert "deadlines" in checked(await site.client.get("/ready"), 503, "not_ready").detail
    assert (await site.get("/health"))["status"] == "healthy"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "route_not_found"),
        ("GET", "/deploy/", 404, "route_not_found"),
        ("GET", "/projects//status", 404, "route_not_found"),
        ("GET", "/deploy", 405, "method_not_allowed"),
        ("DELETE", "/jobs/x", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
async def test_what_no_route_takes_is_a_problem(site: Site, method: str, path: str, status: int, code: str) -> None:
    response = await site.client.request(method, path)
    checked(response, status, code)
    if status == 405:
        assert response.headers["allow"]
