"""A body costs at most its limit in bytes and its deadline in seconds, whatever its headers say."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import Message, Receive, Scope, Send

from control_plane.api import body_limit
from control_plane.api.body_limit import LINGER_SECONDS, BodyLimitMiddleware
from control_plane.api.edge import install_edge
from tests.support.http import client_of, serving

LIMIT = 1000


@dataclass
class Recorder:
    """An app that reads the whole body and answers its size; remembers what it was given."""

    given: int = 0
    calls: int = 0
    after_body: list[Message] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if scope["type"] != "http":
            return
        more = True
        while more:
            message = await receive()
            self.given += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.after_body.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.given).encode()})


@dataclass
class Exchange:
    """One request, message by message; the answer is collected."""

    chunks: Iterable[bytes]
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    seconds_before_leaving: float = 0.0
    sent: list[Message] = field(default_factory=list)
    received: int = 0

    def __post_init__(self) -> None:
        self._messages = iter(self.chunks)

    async def receive(self) -> Message:
        chunk = next(self._messages, None)
        if chunk is None:
            await asyncio.sleep(self.seconds_before_leaving)
            return {"type": "http.disconnect"}
        self.received += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": chunk != b""}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def through(self, app: Any) -> int:
        await app({"type": "http", "headers": self.headers}, self.receive, self.send)
        starts = [message for message in self.sent if message["type"] == "http.response.start"]
        assert len(starts) == 1, "one answer, and only one"
        status: int = starts[0]["status"]
        return status


def make_app(max_seconds: float = 30.0) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.post("/json")
    async def take_json(body: dict[str, str]) -> int:
        return len(body)

    @app.post("/raw")
    async def take_raw(request: Request) -> int:
        return len(await request.body())

    install_edge(app, max_body_bytes=LIMIT, max_body_seconds=max_seconds)
    return app


async def in_chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 100):
        yield b"x" * 100


async def ask(host: str, port: int, request: bytes, until: bytes | None = None) -> bytes:
    """Write `request` whole, then read until `until`, or until the server closes."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        await writer.drain()
        return await (reader.read() if until is None else reader.readuntil(until))
    finally:
        writer.close()


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == code
    assert response.headers["x-request-id"]


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    async with client_of(make_app()) as client:
        assert (await client.post("/raw", content=b"x" * LIMIT)).json() == LIMIT
        assert (await client.post("/raw", content=in_chunks(LIMIT))).json() == LIMIT


@pytest.mark.promise("parser bombs")
@pytest.mark.parametrize("path", ["/raw", "/json"])
async def test_one_byte_more_is_413_declared_or_streamed(path: str) -> None:
    headers = {"Content-Type": "application/json"}
    async with client_of(make_app()) as client:
        declared = await client.post(path, content=b"x" * (LIMIT + 1), headers=headers)
        streamed = await client.post(path, content=in_chunks(LIMIT + 100), headers=headers)
    for response in (declared, streamed):
        assert_problem(response, 413, "too_large")
        assert str(LIMIT) in response.json()["detail"]


@pytest.mark.parametrize("length", [b"1001", b"9" * 5_000])
async def test_a_declared_length_over_the_limit_is_answered_before_anything_is_read(length: bytes) -> None:
    app, exchange = Recorder(), Exchange([], [(b"content-length", length)])
    assert await exchange.through(BodyLimitMiddleware(app, LIMIT)) == 413
    assert app.calls == 0


@pytest.mark.promise("parser bombs")
@pytest.mark.parametrize(
    "headers", [[], [(b"content-length", b"10")], [(b"content-length", b"-1")], [(b"content-length", b"odd")]]
)
async def test_a_length_that_lies_does_not_get_more_than_the_limit_into_the_app(
    headers: list[tuple[bytes, bytes]],
) -> None:
    await check_stream(headers)


@pytest.mark.control("parser bombs")
async def test_a_limit_that_trusts_the_declared_length_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit._BoundedBody, "receive", lambda body: body._receive())
    with pytest.raises(AssertionError):
        await check_stream([(b"content-length", b"10")])


async def check_stream(headers: list[tuple[bytes, bytes]]) -> None:
    """Assert that of a body in three pieces, over the limit from the second on, the app is given the first."""
    app, exchange = Recorder(), Exchange([b"x" * 600] * 3, headers)
    assert await exchange.through(BodyLimitMiddleware(app, LIMIT)) == 413
    assert app.given == 600


async def test_what_is_read_after_a_refusal_is_bounded() -> None:
    exchange = Exchange(b"x" * 1_000_000 for _ in range(100))
    assert await exchange.through(BodyLimitMiddleware(Recorder(), LIMIT)) == 413
    assert exchange.received < 12_000_000


async def test_the_deadline_is_the_bodys_and_ends_with_it() -> None:
    app, exchange = Recorder(), Exchange([b"x", b""], seconds_before_leaving=0.1)
    assert await exchange.through(BodyLimitMiddleware(app, LIMIT, max_seconds=0.02)) == 200
    assert app.after_body == [{"type": "http.disconnect"}]


async def test_an_answer_that_has_begun_is_cut_off_rather_than_followed_by_another() -> None:
    async def answers_first(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await receive()

    exchange = Exchange([b"x" * 600] * 3)
    with pytest.raises(Exception, match="413"):
        await exchange.through(BodyLimitMiddleware(answers_first, LIMIT))
    assert [message["type"] for message in exchange.sent] == ["http.response.start"]


async def test_websockets_pass_untouched() -> None:
    app, exchange = Recorder(), Exchange([])
    scope: Scope = {"type": "websocket", "headers": [(b"content-length", b"5000")]}
    await BodyLimitMiddleware(app, LIMIT)(scope, exchange.receive, exchange.send)
    assert (app.calls, exchange.sent) == (1, [])


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3d0900\r\n"]
)
async def test_a_client_that_sends_megabytes_reads_the_413_instead_of_a_broken_pipe(framing: bytes) -> None:
    async with serving(make_app()) as (host, port):
        request = b"POST /raw HTTP/1.1\r\nHost: x\r\n" + framing + b"x" * 4_000_000
        answer = await asyncio.wait_for(ask(host, port, request), LINGER_SECONDS + 10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer.lower()
    assert b'"code":"too_large"' in answer


STALLED = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "start",
    [
        b"Content-Length: 100\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"Content-Length: 9\r\n\r\n",
    ],
)
async def test_a_body_that_stalls_is_answered_408(start: bytes) -> None:
    async with serving(make_app(max_seconds=0.1)) as (host, port):
        answer = await asyncio.wait_for(ask(host, port, STALLED + start, until=b"}"), 10)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


async def test_a_client_that_stays_silent_after_its_408_is_cut_off() -> None:
    async with serving(make_app(max_seconds=0.1)) as (host, port):
        answer = await asyncio.wait_for(ask(host, port, STALLED + b"Content-Length: 9\r\n\r\n"), LINGER_SECONDS + 10)
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"}")


async def test_a_body_that_trickles_has_one_deadline_for_the_whole_of_it() -> None:
    async with serving(make_app(max_seconds=0.2)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(STALLED + b"Content-Length: 900\r\n\r\n")
        answer = asyncio.create_task(reader.readuntil(b"}"))
        sent = 0
        while not answer.done() and sent < 800:
            writer.write(b" ")
            sent += 1
            await asyncio.wait([answer], timeout=0.01)
        writer.close()
    assert (await answer).startswith(b"HTTP/1.1 408 ")


async def test_a_refused_client_can_go_on_over_a_new_connection() -> None:
    async with serving(make_app()) as (host, port), httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        assert_problem(await client.post("/raw", content=b"x" * 5000), 413, "too_large")
        assert (await client.post("/raw", content=b"x")).json() == 1
