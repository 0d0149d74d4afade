"""Agents' own tokens: from the first one on, nothing else opens their hostname, and nothing else keeps a socket."""

import asyncio

import pytest

from control_plane.fleet import manager
from control_plane.ws import handshake
from tests.support.app import AGENT_TOKEN, API_TOKEN
from tests.support.raw_socket import RawSocket, RefusalError
from tests.support.tenants import made, tenant
from tests.ws.conftest import OpenFleet
from tests.ws.fleet import Fleet

SECONDS = 5
"""Within which a socket without the right token is closed."""


async def own_token(fleet: Fleet, hostname: str = "web-1") -> str:
    """Give an agent that was here a token of its own."""
    agent_id = (await fleet.row(hostname))["id"]
    return str((await made(fleet.client, f"/agents/{agent_id}/token", {}))["token"])


async def come(fleet: Fleet, token: str, hostname: str = "web-1") -> RawSocket:
    """Return the socket of an agent that is let in."""
    return await fleet.agents.enter_async_context(await RawSocket.open(fleet.ws_url, token, hostname))


async def refusal(fleet: Fleet, token: str, hostname: str = "web-1", *, capabilities: str = "") -> tuple[int, str, str]:
    """Return status, code and sentence of a handshake that is refused."""
    with pytest.raises(RefusalError) as refused:
        async with await RawSocket.open(fleet.ws_url, token, hostname, ("X-Agent-Capabilities", capabilities)):
            pass
    return refused.value.status, refused.value.problem["code"], refused.value.problem["detail"]


async def ended(raw: RawSocket) -> tuple[int, str]:
    async with asyncio.timeout(SECONDS):
        return await raw.closed()


async def test_the_socket_that_came_with_the_shared_secret_ends_when_its_agent_gets_a_token(fleet: Fleet) -> None:
    raw = await fleet.raw("web-1")
    token = await own_token(fleet)
    assert await ended(raw) == (1008, "its token is not valid any more")
    assert (await fleet.offline("web-1"))["bound"] is True
    await come(fleet, token)
    assert (await fleet.row("web-1"))["status"] == "online"


async def test_a_peer_that_ignores_the_close_is_cut(fleet: Fleet) -> None:
    raw = await fleet.raw("web-1")
    await own_token(fleet)
    async with asyncio.timeout(SECONDS):
        assert (await raw.closed(polite=False))[0] == 1008
        await fleet.offline("web-1")


async def test_the_socket_that_came_with_the_token_before_ends_and_that_token_with_it(fleet: Fleet) -> None:
    await fleet.raw("web-1")
    first = await own_token(fleet)
    raw = await come(fleet, first)
    second = await own_token(fleet)
    assert (await ended(raw))[0] == 1008
    assert (await refusal(fleet, first))[:2] == (401, "unauthorized")
    await come(fleet, second)


async def test_a_revoked_token_ends_its_socket_and_its_hostname_stays_bound(fleet: Fleet) -> None:
    await fleet.raw("web-1")
    raw = await come(fleet, token := await own_token(fleet))
    row = await fleet.row("web-1")
    assert (await fleet.client.delete(f"/agents/{row['id']}/token")).status_code == 204
    assert (await ended(raw))[0] == 1008
    status, _, detail = await refusal(fleet, token)
    assert status == 401
    assert "POST /agents/enroll" in detail
    assert (await refusal(fleet, AGENT_TOKEN))[:2] == (403, "hostname_bound")
    assert (await fleet.row("web-1"))["bound"] is True


@pytest.mark.promise("bound hostnames")
async def test_the_shared_secret_never_opens_a_bound_hostname_again(fleet: Fleet) -> None:
    await check_shared_secret(fleet)


async def check_shared_secret(fleet: Fleet) -> None:
    """Assert that a bound hostname's agent is never disturbed by who has the shared secret, nor its place taken."""
    await fleet.raw("web-1", ("X-Agent-Instance", "process-1"))
    token = await own_token(fleet)
    status, code, detail = await refusal(fleet, AGENT_TOKEN)
    assert (status, code) == (403, "hostname_bound")
    assert "POST /agents/{id}/token" in detail
    headers = ("X-Agent-Instance", "process-2")
    raw = await fleet.agents.enter_async_context(await RawSocket.open(fleet.ws_url, token, "web-1", headers))
    for instance in ("process-1", "process-2"):
        with pytest.raises(RefusalError) as refused:
            await RawSocket.open(fleet.ws_url, AGENT_TOKEN, "web-1", ("X-Agent-Instance", instance))
        assert (refused.value.status, refused.value.problem["code"]) == (403, "hostname_bound")
    job = await fleet.start("web")
    assert (await raw.command())["id"] == job, "the agent was driven out"
    events = (await fleet.get("/events", kind="agent_replaced"))["events"]
    assert events == []


@pytest.mark.control("bound hostnames")
async def test_a_hostname_that_is_cleared_before_its_newcomer_is_judged_would_be_found(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "check_arrival", lambda _db, _claim: None)
    with pytest.raises((AssertionError, asyncio.IncompleteReadError)):
        await check_shared_secret(fleet)


@pytest.mark.promise("bound hostnames")
async def test_a_token_opens_no_hostname_but_its_own(fleet: Fleet) -> None:
    await check_own_hostname(fleet)


async def check_own_hostname(fleet: Fleet) -> None:
    """Assert that an agent's token claims neither a free hostname, nor another agent's, bound or not."""
    for hostname in ("web-1", "web-2", "web-3"):
        await fleet.raw(hostname)
    token, other = await own_token(fleet, "web-1"), await own_token(fleet, "web-2")
    raw = await come(fleet, other, "web-2")
    for hostname in ("web-2", "web-3", "free", "WEB-1", "web-1 ."):
        status, code, detail = await refusal(fleet, token, hostname)
        assert (status, code) == (403, "hostname_bound"), hostname
        assert "belongs to the agent 'web-1'" in detail
    job = await fleet.start("web", agent_id=(await fleet.row("web-2"))["id"])
    assert (await raw.command())["id"] == job
    assert (await fleet.get("/agents"))["total"] == 3


@pytest.mark.control("bound hostnames")
async def test_a_handshake_that_believes_the_header_would_be_found(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "is_anothers", lambda _token, _hostname: False)
    with pytest.raises(AssertionError):
        await check_own_hostname(fleet)


@pytest.mark.usefixtures("quick_ping")
async def test_a_dead_agent_whose_newcomer_lost_the_right_to_come_meanwhile_is_shown_offline(fleet: Fleet) -> None:
    frozen = await fleet.joined("web-1", reconnect=False)
    frozen.freeze()
    enrolment = await made(fleet.client, "/agents/enroll", {})
    dialing = asyncio.create_task(refusal(fleet, enrolment["token"], capabilities="enroll"))
    await fleet.until(lambda: (1, "web-1") in fleet.plane.manager._doors)
    assert (await fleet.client.delete(f"/tokens/{enrolment['id']}")).status_code == 204
    assert (await dialing)[:2] == (401, "unauthorized")
    row = await fleet.offline("web-1")
    assert (await fleet.client.delete(f"/agents/{row['id']}")).status_code == 204


@pytest.fixture
def quick_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "INCUMBENT_PING_SECONDS", 0.5)


async def test_where_the_shared_secret_is_off_only_tokens_of_their_own_let_agents_in(open_fleet: OpenFleet) -> None:
    fleet = await open_fleet(agent_shared_secret="off")
    status, code, detail = await refusal(fleet, AGENT_TOKEN)
    assert (status, code) == (401, "unauthorized")
    assert "switched off" in detail
    assert "POST /agents/enroll" in detail


async def test_whoever_mixes_tokens_up_is_told_which_one_is_wanted(fleet: Fleet) -> None:
    caller = await tenant(fleet, "root")
    await fleet.raw("web-1")
    token = await own_token(fleet)
    enrolment = (await made(fleet.client, "/agents/enroll", {}))["token"]
    status, _, detail = await refusal(fleet, caller.token)
    assert status == 401
    assert "This is an API token" in detail
    assert (await refusal(fleet, API_TOKEN))[0] == 401
    status, _, detail = await refusal(fleet, token[:-1])
    assert status == 401
    assert "not whole" in detail
    for each in (token, enrolment):
        answer = await caller.client.get("/me", headers={"Authorization": f"Bearer {each}"})
        assert answer.status_code == 401
        assert "This is a token for agents" in answer.json()["detail"]
    assert (await caller.client.get("/me", headers={"Authorization": f"Bearer {AGENT_TOKEN}"})).status_code == 401
