"""A head costs its sender a bounded time and this server a bounded memory, whoever sends it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from urllib.parse import urlsplit

import pytest

from control_plane.api import request_heads
from control_plane.api.request_heads import MAX_HEAD_BYTES, HeadClock
from tests.support.app import API_TOKEN, Site

HEAD = b"GET /health HTTP/1.1\r\nHost: control-plane\r\n"
SHORT_SECONDS = 0.3
PATIENCE_SECONDS = 10


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_heads, "HEAD_SECONDS", SHORT_SECONDS)
    monkeypatch.setattr(request_heads, "SWEEP_SECONDS", 0.05)


class Connection:
    """A client that writes what it is told to, and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, object]]:
        """Return status and JSON document of the next answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return int(head[9:12]), json.loads(await self._reader.readexactly(length))

    async def ended(self) -> bytes:
        """Wait for the end of the connection; return what came before it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._reader.read()


Dial = Callable[[], Awaitable[Connection]]


@pytest.fixture
async def dial(site: Site) -> AsyncIterator[Dial]:
    at = urlsplit(site.url)
    writers: list[asyncio.StreamWriter] = []

    async def one() -> Connection:
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        writers.append(writer)
        return Connection(reader, writer)

    yield one
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def check_silence_ends(silent: Connection) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS / 5):
        assert await silent.ended() == b""


@pytest.mark.promise("slow clients")
@pytest.mark.usefixtures("short_time")
async def test_a_connection_that_says_nothing_is_closed(dial: Dial) -> None:
    await check_silence_ends(await dial())


@pytest.mark.control("slow clients")
@pytest.mark.usefixtures("short_time")
async def test_without_the_clock_it_would_stay(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadClock, "start", lambda *_: None)
    with pytest.raises(TimeoutError):
        await check_silence_ends(await dial())


@pytest.mark.promise("slow clients")
@pytest.mark.usefixtures("short_time")
async def test_a_head_that_does_not_come_to_its_end_is_answered_408(dial: Dial) -> None:
    slow = await dial()
    await slow.write([HEAD])
    status, problem = await slow.answer()
    assert (status, problem["code"]) == (408, "request_timeout")
    assert await slow.ended() == b""


@pytest.mark.usefixtures("short_time")
async def test_so_is_a_later_head_on_a_connection_that_was_served(dial: Dial) -> None:
    slow = await dial()
    await slow.write([HEAD, b"\r\n"])
    assert (await slow.answer())[0] == 200
    await slow.write([HEAD])
    assert (await slow.answer())[0] == 408


@pytest.mark.usefixtures("short_time")
async def test_so_is_one_that_began_while_the_request_before_it_was_being_answered(dial: Dial) -> None:
    slow = await dial()
    await slow.write([HEAD + b"\r\n" + HEAD])
    assert (await slow.answer())[0] == 200
    await slow.write([b"X-Slow: "])
    assert (await slow.answer())[0] == 408


@pytest.mark.usefixtures("short_time")
async def test_what_is_slow_for_other_reasons_is_let_be(site: Site, dial: Dial) -> None:
    """A connection that was served and is idle; one whose request waits for a job, with half a request behind it."""
    agent = await site.agent()
    agent.hold("slow")
    idle = await dial()
    await idle.write([HEAD, b"\r\n"])
    await idle.answer()
    job = (await site.deploy("slow", wait=0))["job_id"]
    asked = f"GET /jobs/{job}?wait=60 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {API_TOKEN}\r\n\r\n".encode()
    waiting = await dial()
    await waiting.write([asked, HEAD])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4 * SHORT_SECONDS):
            await waiting.answer()
    agent.release("slow")
    assert (await waiting.answer())[1]["status"] == "completed"
    await idle.write([HEAD, b"\r\n"])
    assert (await idle.answer())[0] == 200


@pytest.mark.parametrize("pieces", [1, 2, 7, 60])
async def test_a_head_may_come_in_pieces(dial: Dial, pieces: int) -> None:
    whole = HEAD + b"X-Long: " + b"x" * 8_000 + b"\r\n\r\n"
    length = -(-len(whole) // pieces)
    patient = await dial()
    await patient.write(whole[at : at + length] for at in range(0, len(whole), length))
    assert (await patient.answer())[0] == 200


@pytest.mark.promise("slow clients")
@pytest.mark.parametrize("endless", [b"x" * 4096, b"X-N: 1\r\n" * 512], ids=["one header", "many headers"])
async def test_a_head_without_end_is_cut_off_soon_after_it_is_too_large(dial: Dial, endless: bytes) -> None:
    hostile = await dial()
    written = 0
    try:
        await hostile.write([HEAD, b"X-Long: "])
        for _ in range(100 * MAX_HEAD_BYTES // len(endless)):
            await hostile.write([endless])
            written += len(endless)
    except ConnectionError:
        pass
    assert written < 100 * MAX_HEAD_BYTES


async def test_a_head_that_is_too_large_is_a_problem_like_others(dial: Dial) -> None:
    large = await dial()
    await large.write([HEAD + b"X-Long: " + b"x" * MAX_HEAD_BYTES])
    status, problem = await large.answer()
    assert (status, problem["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01\x00", b"HELO mail\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http_is_a_problem_like_others(dial: Dial, noise: bytes) -> None:
    strange = await dial()
    await strange.write([noise])
    status, problem = await strange.answer()
    assert (status, problem["code"]) == (400, "bad_request")
    assert await strange.ended() == b""
