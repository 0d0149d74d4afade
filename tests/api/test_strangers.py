"""Connections that show no token have a bound for each address; those that showed one are never ended for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from control_plane.core import strangers
from control_plane.core.strangers import Strangers
from tests.api.conftest import OpenSite
from tests.support.app import API_TOKEN, Site

LIMIT = 3
PATIENCE_SECONDS = 10
BAD = b"GET /agents HTTP/1.1\r\nHost: a\r\n\r\n"
GOOD = f"GET /agents HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {API_TOKEN}\r\n\r\n".encode()
PUBLIC = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


class Connection:
    """A client on loopback that says what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> int:
        """Return the status of the answer to a request."""
        self.writer.write(request)
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await self._reader.readexactly(length)
        return int(head[9:12])

    async def ended(self) -> bool:
        """Wait for the end of the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with contextlib.suppress(ConnectionError):
                return await self._reader.read() == b""
        return True


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


Dial = Callable[[], Awaitable[Connection]]


@pytest.fixture
async def site(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(strangers, "PATIENCE_SECONDS", 0.0)
    return await open_site(max_unauthenticated_per_address=LIMIT)


@pytest.fixture
async def dial(site: Site) -> AsyncIterator[Dial]:
    host, _, port = site.url.removeprefix("http://").partition(":")
    table: Strangers = site.app.state.strangers
    async with contextlib.AsyncExitStack() as stack:

        async def one() -> Connection:
            arrived = asyncio.Event()
            wait = table.wait

            def noted(address: str, stranger: strangers.Stranger) -> None:
                wait(address, stranger)
                arrived.set()

            table.wait = noted  # type: ignore[method-assign]
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.push_async_callback(close, writer)
            await arrived.wait()
            table.wait = wait  # type: ignore[method-assign]
            return Connection(reader, writer)

        yield one


async def check_oldest_goes(dial: Dial) -> None:
    """Assert that one connection too many ends the one that has waited longest, and no other."""
    waiting = [await dial() for _ in range(LIMIT + 1)]
    assert await waiting[0].ended()
    for connection in waiting[1:]:
        assert await connection.ask(PUBLIC) == 200


@pytest.mark.promise("slow clients")
async def test_one_silent_connection_too_many_ends_the_longest_silent(site: Site, dial: Dial) -> None:
    await check_oldest_goes(dial)
    assert site.plane.metrics.registry.get_sample_value("instadeploy_connections_turned_away_total") == 1


@pytest.mark.control("slow clients")
async def test_without_the_bound_it_would_stay(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strangers, "_make_room", lambda *_: None)
    monkeypatch.setattr("tests.api.test_strangers.PATIENCE_SECONDS", 0.3)
    with pytest.raises(TimeoutError):
        await check_oldest_goes(dial)


async def test_a_wrong_token_makes_nobody_known(dial: Dial) -> None:
    waiting = [await dial() for _ in range(LIMIT)]
    for connection in waiting:
        assert await connection.ask(BAD) == 401
    await dial()
    assert await waiting[0].ended()


async def test_a_connection_that_has_shown_a_token_is_not_counted(site: Site, dial: Dial) -> None:
    known = [await dial() for _ in range(LIMIT)]
    for connection in known:
        assert await connection.ask(GOOD) == 200
    strange = [await dial() for _ in range(LIMIT + 2)]
    assert await strange[0].ended()
    for connection in [*known, *strange[2:]]:
        assert await connection.ask(GOOD) == 200
    assert site.app.state.strangers.count("127.0.0.1") == 0


async def test_one_whose_request_is_being_answered_is_let_be(site: Site, dial: Dial) -> None:
    agent = await site.agent()
    agent.hold("slow")
    job = (await site.deploy("slow", wait=0))["job_id"]
    patient = await dial()
    question = GOOD.replace(b"/agents", f"/jobs/{job}?wait=30".encode())
    asked = asyncio.create_task(patient.ask(PUBLIC + question))
    for _ in range(LIMIT + 2):
        await dial()
    assert await asked == 200
    agent.release("slow")
    assert await patient.ask(b"") == 200


async def test_agents_are_not_counted(site: Site, dial: Dial) -> None:
    agents = [await site.agent(f"host-{number}") for number in range(LIMIT * 2)]
    for _ in range(LIMIT * 2):
        await dial()
    rows = (await site.get("/agents"))["agents"]
    assert [row["status"] for row in rows] == ["online"] * len(agents)


async def test_the_connections_of_a_named_proxy_are_not_counted(open_site: OpenSite) -> None:
    site = await open_site(max_unauthenticated_per_address=1, trusted_proxies=("127.0.0.1/32",))
    host, _, port = site.url.removeprefix("http://").partition(":")
    connections = [Connection(*await asyncio.open_connection(host, int(port))) for _ in range(40)]
    for connection in connections:
        assert await connection.ask(PUBLIC) == 200
        await close(connection.writer)
