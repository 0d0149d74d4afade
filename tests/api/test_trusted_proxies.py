"""Behind a proxy that is named, each caller and each agent has an address of its own; no one else may say his."""

import httpx
import pytest

from control_plane.core.proxies import TrustedProxies
from tests.api.conftest import OpenSite
from tests.support.app import AGENT_TOKEN, Site
from tests.support.problem_app import checked
from tests.support.raw_socket import RawSocket, RefusalError

NAMED = ("127.0.0.1/32",)
FORWARDED = "X-Forwarded-For"


async def connected_as(site: Site, forwarded: str) -> str:
    """Return the address that an agent with this header is shown under."""
    url = site.url.replace("http", "ws", 1) + "/ws"
    async with await RawSocket.open(url, AGENT_TOKEN, "host-1", (FORWARDED, forwarded)):
        [row] = (await site.get("/agents"))["agents"]
        return str(row["ip_address"])


async def guess(site: Site, forwarded: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, verify=False) as client:  # noqa: S501 - no TLS
        return await client.get("/agents", headers={"Authorization": "Bearer wrong", FORWARDED: forwarded})


async def test_an_agent_behind_a_named_proxy_has_its_own_address(open_site: OpenSite) -> None:
    site = await open_site(trusted_proxies=NAMED)
    assert await connected_as(site, "1.2.3.4, 198.51.100.7") == "198.51.100.7"


@pytest.mark.parametrize("named", [(), ("192.0.2.1/32",)])
async def test_nobody_else_is_believed(open_site: OpenSite, named: tuple[str, ...]) -> None:
    site = await open_site(trusted_proxies=named)
    assert await connected_as(site, "198.51.100.7") == "127.0.0.1"


async def check_guesser_stays_limited(site: Site) -> None:
    """Assert that no header makes one guesser look like many."""
    checked(await guess(site, "198.51.100.1"), 401, "unauthorized")
    checked(await guess(site, "198.51.100.2"), 429, "too_many_failures")


@pytest.mark.promise("guessing")
async def test_a_guesser_cannot_choose_its_address(open_site: OpenSite) -> None:
    await check_guesser_stays_limited(await open_site(max_failed_tokens_per_minute=1))


@pytest.mark.control("guessing")
async def test_if_everybody_were_believed_a_guesser_could(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrustedProxies, "trust", lambda _self, address: address == "127.0.0.1")
    site = await open_site(max_failed_tokens_per_minute=1, trusted_proxies=("192.0.2.1/32",))
    with pytest.raises(AssertionError, match="unauthorized"):
        await check_guesser_stays_limited(site)


async def test_behind_a_named_proxy_one_guesser_does_not_stand_for_all(open_site: OpenSite) -> None:
    site = await open_site(max_failed_tokens_per_minute=1, trusted_proxies=NAMED)
    for _ in range(2):
        await guess(site, "198.51.100.1")
    checked(await guess(site, "198.51.100.1"), 429, "too_many_failures")
    checked(await guess(site, "198.51.100.2"), 401, "unauthorized")
    checked(await guess(site, "198.51.100.1, 198.51.100.3"), 401, "unauthorized")
    url = site.url.replace("http", "ws", 1) + "/ws"
    for address, status in (("198.51.100.1", 429), ("198.51.100.4", 401)):
        with pytest.raises(RefusalError) as refused:
            await RawSocket.open(url, "wrong", "host-1", (FORWARDED, address))
        assert refused.value.status == status
