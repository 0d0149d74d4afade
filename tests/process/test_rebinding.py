"""A page whose name was led to this machine (DNS rebinding) is the server's own to its browser, and to no one else."""

from typing import Any

import pytest

from tests.support.app import WEB
from tests.support.http import untidied
from tests.support.raw_socket import RawSocket, RefusalError
from tests.support.server import ServerProcess

OPEN = {"API_AUTH": "none"}
"""What a developer runs, in whose browser that page is."""


async def as_page(server: ServerProcess, method: str, path: str, body: Any = None) -> int:
    """Return the status of the answer to a request as a browser sends it for a page that was rebound to the server."""
    name = f"evil.example:{server.url.rpartition(':')[2]}"
    headers = {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}
    return (await untidied(server.url, method, path, headers, body))[0]


async def check_rebound_page(server: ServerProcess) -> None:
    """Assert that such a page can neither read nor change anything."""
    assert await as_page(server, "GET", "/jobs") == 421
    deploy = {"project_name": "evil", "compose_file": WEB, "when_offline": "queue"}
    assert await as_page(server, "POST", "/deploy", deploy) == 421
    assert await as_page(server, "GET", "/health") == 421
    with pytest.raises(RefusalError) as refused:
        await RawSocket.upgrade(server.ws_url, [("X-Agent-Hostname", "page")], host="evil.example")
    assert refused.value.status == 421


@pytest.mark.promise("browsers")
async def test_a_page_that_was_rebound_to_loopback_gets_nowhere() -> None:
    async with ServerProcess(env=OPEN) as server:
        await check_rebound_page(server)
        assert await as_page(server, "GET", "/jobs") == 421
        async with server.client() as client:
            assert (await client.get("/jobs")).json()["jobs"] == []


@pytest.mark.control("browsers")
async def test_without_a_look_at_the_host_it_would_read_and_change_things() -> None:
    async with ServerProcess(env=OPEN, sabotage="any_host_served") as server:
        with pytest.raises(AssertionError, match="200 == 421"):
            await check_rebound_page(server)


async def test_a_name_that_the_operator_gives_is_served_on_loopback() -> None:
    async with ServerProcess(env={"ALLOWED_HOSTS": "127.0.0.1,evil.example", **OPEN}) as server:
        assert await as_page(server, "GET", "/jobs") == 200
