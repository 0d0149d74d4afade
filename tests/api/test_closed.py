"""Nothing is open that nobody opened: a walk over all that the app serves finds each route that forgot the token."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from control_plane.api import auth
from tests.api.conftest import OpenSite
from tests.support.app import AGENT_TOKEN, API_TOKEN, Site
from tests.support.go_agent import GoAgent
from tests.support.http import untidied
from tests.support.raw_socket import RawSocket, RefusalError

OPEN = {"/", "/health", "/ready", "/docs", "/openapi.json", "/static", "/install.sh", "/cloud-init.yaml", "/agent.pyz"}
"""What this service is and how to use it; nothing of what it knows."""
SAMPLE = {
    "name": "web",
    "token_id": "1",
    "agent_id": "1",
    "deployment_id": "1",
    "job_id": "01a209fb-c730-735a-bcc1-eea7d4ab715a",
}
BODY = {"project_name": "web", "compose_file": "services: {web: {image: nginx}}"}

ELSEWHERE = f"?wait=0&token={API_TOKEN}&access_token={API_TOKEN}"
"""The token where it would end up in logs. With a query a deploy also takes another way through the app."""


def wrong(token: str, another: str) -> list[list[tuple[str, str]]]:
    """Return headers that do not present `token` as it must be; `another` opens another door."""
    presented = [
        "", "Bearer", "Bearer wrong", token, f"Basic {token}", f"Bearer {token}x", f"Bearer {token[:-1]}",
        f"Bearer {token.upper()}", f"Bearer {token} {token}", f"Bearer {another}",
    ]  # fmt: skip
    return [
        [],
        *([("Authorization", value)] for value in presented),
        [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {token}")],
        [("Cookie", f"token={token}; Authorization=Bearer {token}")],
        [("X-Api-Key", token)],
    ]


def doors(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield method and path of each route, OpenAPI's and others, and of each shortcut past the router."""
    for route in app.routes:
        assert isinstance(route, Route | APIRoute | Mount), f"{route} is of a kind that this walk does not know"
        if route.path not in OPEN:
            for method in sorted(getattr(route, "methods", None) or {"GET", "POST"}):
                yield method, getattr(route, "path_format", route.path)
    for kind, path in app._shortcuts:  # type: ignore[attr-defined]
        yield ("POST" if kind == "http" else "WEBSOCKET"), path


async def check_closed(site: Site) -> None:
    """Assert that every door but the public ones answers 401 to whoever has not the right token."""
    walked = set(doors(site.app))
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, verify=False) as stranger:  # noqa: S501
        for method, path in sorted(walked):
            for query in ("", ELSEWHERE):
                url = path.format(**SAMPLE) + query
                if method == "WEBSOCKET":
                    answers = [
                        (headers, await handshake(site, url, headers)) for headers in wrong(AGENT_TOKEN, API_TOKEN)
                    ]
                else:
                    body = BODY if method == "POST" else None
                    answers = [
                        (bad, (await stranger.request(method, url, headers=bad, json=body)).status_code)
                        for bad in wrong(API_TOKEN, AGENT_TOKEN)
                    ]
                for bad, status in answers:
                    assert status == 401, f"{method} {url} answered {status} to a stranger with {bad}"
    documented = {
        (method.upper(), path)
        for path, item in site.app.openapi()["paths"].items()
        if path not in OPEN
        for method in item
    }
    assert documented | {("WEBSOCKET", "/ws"), ("GET", "/metrics"), ("GET", "/events")} <= walked


async def handshake(site: Site, path: str, headers: list[tuple[str, str]]) -> int:
    """Return the status that an agent's handshake with these headers is answered with."""
    url = site.url.replace("http", "ws", 1) + path
    try:
        async with await RawSocket.upgrade(url, [*headers, ("X-Agent-Hostname", "stranger")]):
            return 101
    except RefusalError as refused:
        return refused.status


@pytest.mark.promise("closed")
async def test_every_door_is_closed_to_strangers_and_nothing_comes_of_their_knocking(
    site: Site, agent: GoAgent
) -> None:
    await site.deploy("web")
    before, commands = await site.stored(), list(agent.commands)
    await check_closed(site)
    assert await site.stored() == before
    assert agent.commands == commands
    assert [row["hostname"] for row in (await site.get("/agents"))["agents"]] == [agent.hostname]


@pytest.mark.promise("closed")
@pytest.mark.parametrize("path", ["/nowhere", "/deploy/", "/agents/1/shell", "//deploy", "/ws/", "/static/../deploy"])
async def test_where_there_is_no_route_strangers_learn_nothing_more(site: Site, path: str) -> None:
    stranger = await untidied(site.url, "POST", path, {}, BODY)
    known = await untidied(site.url, "POST", path, {"Authorization": f"Bearer {API_TOKEN}"}, BODY)
    assert stranger == known
    assert known[1]["code"] in {"route_not_found", "method_not_allowed"}
    assert (await site.get("/jobs"))["jobs"] == []


@pytest.mark.control("closed")
async def test_a_route_that_forgot_the_token_would_be_found(site: Site) -> None:
    async def everything() -> str:
        return "all that we know"

    site.app.add_api_route("/everything", everything)
    with pytest.raises(AssertionError, match="GET /everything answered 200 to a stranger"):
        await check_closed(site)


@pytest.mark.control("closed")
async def test_a_check_that_takes_any_token_would_be_found(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "check_token", lambda _connection: None)
    with pytest.raises(AssertionError, match="to a stranger"):
        await check_closed(await open_site())
