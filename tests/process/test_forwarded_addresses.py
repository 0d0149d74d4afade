"""The server as it is started believes forwarded addresses of the proxies alone that TRUSTED_PROXIES names."""

import pytest

from tests.support.raw_socket import RawSocket
from tests.support.server import ServerProcess


@pytest.mark.parametrize(("named", "address"), [(None, "127.0.0.1"), ("127.0.0.0/8", "198.51.100.7")])
async def test_an_agents_address_is_its_proxys_unless_that_is_named(named: str | None, address: str) -> None:
    everybody = {"FORWARDED_ALLOW_IPS": "*"}  # what uvicorn itself would read
    async with ServerProcess(env={"TRUSTED_PROXIES": named, **everybody}) as server, server.client() as client:
        forwarded = ("X-Forwarded-For", "198.51.100.7")
        async with await RawSocket.open(server.ws_url, server.agent_token, "host-1", forwarded):
            [row] = (await client.get("/agents")).json()["agents"]
    assert row["ip_address"] == address
