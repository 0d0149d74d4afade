"""How agents are let in: every refusal is an HTTP answer that says why, and nothing odd gets into the store."""

import asyncio
import contextlib
from urllib.parse import urlsplit

import httpx
import pytest

from control_plane.ws import inflow
from tests.support.app import AGENT_TOKEN
from tests.support.raw_socket import Header, RawSocket, RefusalError
from tests.ws.conftest import OpenFleet
from tests.ws.fleet import Fleet

TOKEN: Header = ("Authorization", f"Bearer {AGENT_TOKEN}")
HOST: Header = ("X-Agent-Hostname", "host-1")


async def refusal(fleet: Fleet, *headers: Header) -> RefusalError:
    with pytest.raises(RefusalError) as refused:
        await RawSocket.upgrade(fleet.ws_url, list(headers))
    assert fleet.plane.manager.connected_count == 0
    return refused.value


@pytest.mark.promise("closed")
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {AGENT_TOKEN}",
        f"Bearer {AGENT_TOKEN} {AGENT_TOKEN}",
        f"Bearer {AGENT_TOKEN}x",
        f"Bearer {AGENT_TOKEN}".encode() + b"\xe9",
        "Bearer токен".encode(),
        b"Bearer \xff\xfe\x80",
        "Bearer " + "x" * 7_000,
    ],
    ids=repr,
)
async def test_without_the_token_the_upgrade_is_answered_401_as_a_problem(
    fleet: Fleet, authorization: str | bytes | None
) -> None:
    headers = [HOST] if authorization is None else [("Authorization", authorization), HOST]
    refused = await refusal(fleet, *headers)
    assert refused.status == 401
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.problem["code"] == "unauthorized"
    assert "AGENT_SECRET_TOKEN" in refused.problem["detail"]
    assert (await fleet.get("/agents"))["total"] == 0


async def test_headers_beyond_what_a_handshake_may_have_are_refused_at_once(fleet: Fleet) -> None:
    assert (await refusal(fleet, ("Authorization", "Bearer " + "x" * 20_000), HOST)).status == 431
    assert (await refusal(fleet, TOKEN, HOST, *[(f"X-{n}", "1") for n in range(200)])).status == 431


@pytest.mark.parametrize("hostname", [None, "", "   ", "\t", "h" * 254, b"\x01\x02", b"\x85\xa0"], ids=repr)
async def test_a_hostname_that_is_missing_or_too_long_is_answered_400(
    fleet: Fleet, hostname: str | bytes | None
) -> None:
    headers = [TOKEN] if hostname is None else [TOKEN, ("X-Agent-Hostname", hostname)]
    try:
        refused = await refusal(fleet, *headers)
    except ConnectionError:
        pytest.fail("the connection was dropped instead of being answered")
    assert refused.status == 400
    assert (await fleet.get("/agents"))["total"] == 0


async def test_the_longest_hostname_is_taken(fleet: Fleet) -> None:
    await fleet.raw("h" * 253)
    assert (await fleet.row("h" * 253))["status"] == "online"


async def test_control_characters_of_headers_do_not_get_into_the_row(fleet: Fleet) -> None:
    odd: list[Header] = [
        ("X-Agent-Hostname", b"web\x85-1\x9b31m"),
        ("X-Agent-Version", b"1.0\x80.0" + b"9" * 500),
        ("X-Agent-Architecture", b"linux-\x90amd64"),
    ]
    async with await RawSocket.upgrade(fleet.ws_url, [TOKEN, *odd]):
        row = await fleet.row("web-131m")
    assert row["version"] == ("1.0.0" + "9" * 500)[:64]
    assert row["architecture"] == "linux-amd64"


@pytest.mark.promise("browsers")
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
async def test_a_web_page_is_answered_403_even_with_the_token(fleet: Fleet, origin: str) -> None:
    refused = await refusal(fleet, TOKEN, HOST, ("Origin", origin))
    assert refused.status == 403
    assert refused.problem["code"] == "origin_not_allowed"


@pytest.mark.control("browsers")
async def test_an_allowed_origin_is_let_in(open_fleet: OpenFleet) -> None:
    fleet = await open_fleet(allowed_origins=("https://ops.example",))
    async with await RawSocket.upgrade(fleet.ws_url, [TOKEN, HOST, ("Origin", "https://ops.example")]):
        assert (await fleet.row("host-1"))["status"] == "online"


async def test_plain_http_on_the_agents_path_is_a_clean_refusal(fleet: Fleet) -> None:
    async with httpx.AsyncClient(base_url=fleet.url, trust_env=False) as client:
        for method in ("GET", "POST"):
            answer = await client.request(method, "/ws", headers={"Authorization": f"Bearer {AGENT_TOKEN}"})
            assert 400 <= answer.status_code < 500
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("pieces", [1, 2, 3, 40, 400])
async def test_a_handshake_may_come_in_pieces(fleet: Fleet, pieces: int) -> None:
    async with await RawSocket.upgrade(fleet.ws_url, [TOKEN, HOST], pieces=pieces) as raw:
        job = await fleet.start("web")
        assert (await raw.command())["id"] == job


async def test_handshakes_of_a_crowd_wait_for_their_turn_and_may_come_in_pieces_meanwhile(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflow, "TURN_STEPS", 1)
    monkeypatch.setitem(inflow.PACES, "arrivals", inflow.Pace(0.01, 0.01))
    async with contextlib.AsyncExitStack() as crowd:
        names = [f"host-{n}" for n in range(20)]
        told = [[TOKEN, ("X-Agent-Hostname", name)] for name in names]
        for raw in await asyncio.gather(*(RawSocket.upgrade(fleet.ws_url, one, pieces=5) for one in told)):
            await crowd.enter_async_context(raw)
        rows = (await fleet.get("/agents"))["agents"]
        assert sorted(row["hostname"] for row in rows if row["status"] == "online") == sorted(names)


async def test_an_agent_that_leaves_before_its_handshake_is_taken_leaves_nothing(fleet: Fleet) -> None:
    at = urlsplit(fleet.ws_url)
    for _ in range(50):
        _, writer = await asyncio.open_connection(at.hostname, at.port)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: a\r\n")
        writer.transport.abort()
    assert (await fleet.get("/health"))["connected_agents"] == 0
    await fleet.joined("host-1")
    assert (await fleet.deploy("web"))["status"] == "completed"


async def test_an_upgrade_that_is_no_websocket_is_answered_and_not_left_hanging(fleet: Fleet) -> None:
    refused = await refusal(fleet, TOKEN, HOST, ("Sec-WebSocket-Key", "twice"))
    assert refused.status == 400


async def test_an_agent_is_known_by_what_its_handshake_says(fleet: Fleet) -> None:
    before = await fleet.joined("web-1", version="1.2.3", architecture="linux-arm64")
    row = await fleet.row("web-1")
    assert row["ip_address"] == "127.0.0.1"
    assert row["version"] == "1.2.3"
    assert row["architecture"] == "linux-arm64"
    assert row["status"] == "online"
    assert row["last_seen"] >= row["created_at"]
    before.reconnect = False
    before.drop()
    await fleet.offline("web-1")
    await fleet.joined("web-1", version="1.2.4")
    again = await fleet.row("web-1")
    assert (again["id"], again["version"], again["status"]) == (row["id"], "1.2.4", "online")
    assert again["created_at"] == row["created_at"]
    assert again["last_seen"] > row["last_seen"]


async def test_agents_that_come_at_once_each_get_one_row(fleet: Fleet) -> None:
    agents = [fleet.go_agent(f"host-{n}") for n in range(50)]
    for agent in agents:
        await fleet.agents.enter_async_context(agent)
    for agent in agents:
        await agent.connected()
    listed = (await fleet.get("/agents"))["agents"]
    assert sorted(row["hostname"] for row in listed) == sorted(agent.hostname for agent in agents)
    assert {row["status"] for row in listed} == {"online"}
