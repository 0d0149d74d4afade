"""A request for a host that the server is not gets 421 on every way in, and tells nothing and changes nothing."""

from typing import Any

import httpx
import pytest

from tests.api.conftest import OpenSite
from tests.support.app import AGENT_TOKEN, WEB, Site
from tests.support.http import untidied
from tests.support.problem_app import checked
from tests.support.raw_socket import RawSocket, RefusalError

NAMED = ("deploy.example.com", "*.example.org")
DEPLOY: dict[str, Any] = {"json": {"project_name": "web", "compose_file": WEB}}


async def ask(site: Site, host: str, method: str = "GET", path: str = "/agents", **request: Any) -> httpx.Response:
    return await site.client.request(method, path, headers={"Host": host}, **request)


@pytest.fixture
async def site(open_site: OpenSite) -> Site:
    return await open_site(allowed_hosts=NAMED)


@pytest.mark.promise("browsers")
@pytest.mark.parametrize(
    ("method", "path", "request_of"),
    [
        ("GET", "/agents", {}),
        ("POST", "/deploy", DEPLOY),
        ("POST", "/deploy?wait=0", DEPLOY),
        ("GET", "/", {}),
        ("GET", "/docs", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/static/docs.js", {}),
        ("GET", "/health", {}),
        ("GET", "/ready", {}),
    ],
)
async def test_a_strange_host_is_misdirected_everywhere(
    site: Site, method: str, path: str, request_of: dict[str, Any]
) -> None:
    answer = await ask(site, "evil.example", method, path, **request_of)
    problem = checked(answer, 421, "host_not_allowed")
    assert "evil" not in problem.detail
    assert answer.headers["x-request-id"]
    jobs = await ask(site, "deploy.example.com", path="/jobs")
    assert jobs.json()["jobs"] == []


async def test_it_is_misdirected_before_its_token_is_looked_at(site: Site) -> None:
    site.client.headers["Authorization"] = "Bearer wrong"
    checked(await ask(site, "evil.example"), 421, "host_not_allowed")
    checked(await ask(site, "deploy.example.com"), 401, "unauthorized")


async def test_its_own_names_are_served_with_any_port(site: Site) -> None:
    for host in ("deploy.example.com", "DEPLOY.example.com:8443", "eu.example.org"):
        assert (await ask(site, host)).status_code == 200


async def test_probes_may_ask_for_an_address_or_for_nothing_and_nothing_else_may(site: Site) -> None:
    for host in ("192.0.2.1", "127.0.0.1:8000", "[::1]:8000"):
        for probe in ("/health", "/ready"):
            assert (await ask(site, host, path=probe)).status_code == 200
        checked(await ask(site, host), 421, "host_not_allowed")
    assert (await untidied(site.url, "GET", "/ready", {"Host": ""}))[0] == 421


async def test_an_agent_is_told_that_it_dialled_another_host(site: Site) -> None:
    url = site.url.replace("http", "ws", 1) + "/ws"
    with pytest.raises(RefusalError) as refused:
        await RawSocket.open(url, AGENT_TOKEN, "host-1")
    assert (refused.value.status, refused.value.problem["code"]) == (421, "host_not_allowed")
    assert "ALLOWED_HOSTS" in refused.value.problem["detail"]
    count = site.plane.metrics.registry.get_sample_value(
        "instadeploy_agent_refusals_total", {"code": "host_not_allowed"}
    )
    assert count == 1


async def test_an_agent_that_dials_an_allowed_host_is_served(open_site: OpenSite) -> None:
    site = await open_site(allowed_hosts=("127.0.0.0/8",))
    agent = await site.agent()
    assert (await site.deploy("web"))["status"] == "completed"
    assert len(agent.commands) == 1


async def test_where_nothing_is_named_everything_is_served(open_site: OpenSite) -> None:
    assert (await ask(await open_site(), "evil.example")).status_code == 200
