"""Bounds what a request's body may cost: bytes, counted while they arrive, and seconds.

`edge.install_edge` puts it around the app. Invariant: the app is never given more than `max_bytes`, whatever
Content-Length says, and never waits for a body beyond its deadline. WebSockets pass untouched.
"""

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api.problem_types import PROTOCOL_ERRORS
from control_plane.api.problems import http_problem

LINGER_SECONDS = 2.0
LINGER_BYTES = 8 * 1024 * 1024
"""How long, and how much, a refused body is read and dropped after its answer: closing a socket with unread
bytes resets it, and the client would see a broken pipe instead of the answer (RFC 9112, section 9.6)."""


class RefusedBodyError(HTTPException):
    """Ends the app's reading. An HTTPException, for FastAPI turns any other error of a body into a 400."""


class BodyLimitMiddleware:
    """Answers 413 to a body over `max_bytes` and 408 to one not complete `max_seconds` after its headers."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_seconds: float = 30.0) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, or refuse before it starts where Content-Length already says too much."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _declares_more_than(self.max_bytes, scope):
            await self._refuse(413, receive, send)
            return
        body = _BoundedBody(receive, send, self.max_bytes, asyncio.get_running_loop().time() + self.max_seconds)
        try:
            await self.app(scope, body.receive, body.send)
        except RefusedBodyError:
            if body.answer_started:
                raise
        if body.refused and not body.answer_started:
            await self._refuse(body.refused, receive, send)

    async def _refuse(self, status: int, receive: Receive, send: Send) -> None:
        code, sentence = PROTOCOL_ERRORS[status]
        if status == 413:
            sentence = f"The body is larger than {self.max_bytes} bytes; send a smaller one."
        answer = http_problem(status, code, sentence, headers={"Connection": "close"})
        await send({"type": "http.response.start", "status": status, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _drop_rest(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _BoundedBody:
    """One request's body and answer: counts the one, and holds back the other once the body is refused."""

    __slots__ = ("_complete", "_deadline", "_left", "_receive", "_send", "answer_started", "refused")

    def __init__(self, receive: Receive, send: Send, max_bytes: int, deadline: float) -> None:
        self._receive = receive
        self._send = send
        self._left = max_bytes
        self._deadline = deadline
        self._complete = False
        self.answer_started = False
        self.refused = 0

    async def receive(self) -> Message:
        if self._complete:  # what is awaited now is the client's leaving, which has no deadline
            return await self._receive()
        try:
            message = await _Started(self._receive(), self._deadline)
        except TimeoutError:
            raise self._refusal(408) from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._refusal(413)
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self.refused and not self.answer_started:
            return  # the app's own answer to the refusal: the middleware gives the only one
        self.answer_started = True
        await self._send(message)

    def _refusal(self, status: int) -> RefusedBodyError:
        self.refused = status
        return RefusedBodyError(status)


class _Started:
    """Awaits a coroutine until a deadline, which is set only if the coroutine has to wait for anything.

    Almost every body is there with its headers, and a timer for each cost as much as reading it.
    """

    __slots__ = ("_coroutine", "_deadline")

    def __init__(self, coroutine: Awaitable[Message], deadline: float) -> None:
        self._coroutine = coroutine
        self._deadline = deadline

    def __await__(self) -> Generator[Any, Any, Message]:
        steps = self._coroutine.__await__()
        try:
            awaited = next(steps)
        except StopIteration as done:
            message: Message = done.value
            return message
        return (yield from self._wait(awaited, steps).__await__())

    async def _wait(self, awaited: Any, steps: Generator[Any, Any, Message]) -> Message:
        async with asyncio.timeout_at(self._deadline):
            return await _Rest(awaited, steps)


class _Rest:
    """Awaits what is left of a coroutine after its first step, which gave `awaited`."""

    __slots__ = ("_awaited", "_steps")

    def __init__(self, awaited: Any, steps: Generator[Any, Any, Message]) -> None:
        self._awaited = awaited
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Message]:
        awaited = self._awaited
        try:
            while True:
                try:
                    sent = yield awaited
                except BaseException as error:
                    awaited = self._steps.throw(error)
                else:
                    awaited = self._steps.send(sent)
        except StopIteration as done:
            message: Message = done.value
            return message


def _declares_more_than(max_bytes: int, scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            # 18 digits are beyond any limit, and int() refuses thousands of them.
            return len(value) > 18 or int(value) > max_bytes
    return False


async def _drop_rest(receive: Receive) -> None:
    dropped = 0
    while dropped <= LINGER_BYTES:
        message = await receive()
        if not message.get("more_body", False):
            return
        dropped += len(message["body"])
