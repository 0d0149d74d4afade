"""A stand-in for the control plane: a real WebSocket server that hands each connection of an agent to the test.

Process tests of the Python agent use it to send commands and to read the answers. It adds no rules of its own:
it keeps every frame in the order it came, and everything is waited for through frames, never by the clock.
"""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from control_plane.core.protocol import MAX_MESSAGE_BYTES
from tests.support.patience import PATIENCE_SECONDS

WEB = "services:\n  web:\n    image: example.invalid/web:1\n"


@dataclass
class Link:
    """One connection of the agent, seen from the control plane."""

    socket: ServerConnection
    frames: list[dict[str, Any]] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def headers(self) -> Mapping[str, str]:
        assert self.socket.request is not None
        return self.socket.request.headers

    async def read(self) -> None:
        try:
            async for text in self.socket:
                async with self._news:
                    self.frames.append(json.loads(text))
                    self.arrived_at.append(time.monotonic())
                    self._news.notify_all()
        except ConnectionClosed:
            pass
        finally:
            self.ended.set()

    async def send(self, job_id: str, kind: str, **payload: Any) -> None:
        await self.socket.send(json.dumps({"id": job_id, "type": kind, "payload": payload}))

    async def deploy(self, job_id: str, project: str = "web", compose_file: str = WEB) -> None:
        encoded = base64.b64encode(compose_file.encode()).decode()
        await self.send(job_id, "DEPLOY_COMPOSE", project_name=project, compose_file_base64=encoded)

    async def wait_for(self, matches: Callable[[dict[str, Any]], bool], count: int = 1) -> dict[str, Any]:
        """Return the `count`-th frame that matches, once it has come."""

        def found() -> list[dict[str, Any]]:
            return [frame for frame in self.frames if matches(frame)]

        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(found()) >= count), PATIENCE_SECONDS)
        return found()[count - 1]

    async def final(self, job_id: str, count: int = 1) -> dict[str, Any]:
        return await self.wait_for(lambda frame: is_final(frame) and frame["job_id"] == job_id, count)

    async def log(self, job_id: str, text: str) -> dict[str, Any]:
        """Return the first answer of the job whose logs hold `text`."""
        return await self.wait_for(lambda frame: frame["job_id"] == job_id and text in frame["logs"])

    def of(self, job_id: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["job_id"] == job_id]


def is_final(frame: dict[str, Any]) -> bool:
    return frame["status"] in {"COMPLETED", "FAILED"}


class Enrollments:
    """A control plane's rules for tokens: an enrolment token gets a hostname one of its own, again until it is used."""

    def __init__(self, *good: str) -> None:
        self.good = set(good)
        self.own: dict[str, str] = {}
        """Of each hostname; take one out to revoke it."""
        self.used: set[str] = set()
        self.gives = True
        """False plays a control plane that lets the agent in and gives it nothing."""
        self.asked: list[str] = []
        """The tokens that were presented, in order."""

    def refuse(self, headers: Headers) -> tuple[int, str] | None:
        """Return the status and the detail of a refusal, or None for an agent that may come in."""
        hostname, token = headers["X-Agent-Hostname"], headers["Authorization"].removeprefix("Bearer ")
        self.asked.append(token)
        if token in self.good:
            taken = self.own.get(hostname) in self.used
            return (403, f"The hostname {hostname} has a token of its own already.") if taken else None
        if token == self.own.get(hostname):
            self.used.add(token)
            return None
        return 401, "This token is unknown, has expired or was revoked."

    def give(self, headers: Headers) -> str | None:
        """Return the new token of an agent that enrols."""
        if headers["Authorization"].removeprefix("Bearer ") not in self.good or not self.gives:
            return None
        assert "enroll" in headers["X-Agent-Capabilities"].split()
        return self.own.setdefault(headers["X-Agent-Hostname"], f"idh_{secrets.token_hex(16)}")


class ControlPlaneStandIn:
    """A WebSocket server on a free port that hands each connection to the test."""

    def __init__(self) -> None:
        self.refuse_with: list[int] = []
        self.enrollments: Enrollments | None = None
        self.files: dict[str, bytes] = {}
        """By path: what plain GET requests are answered with."""
        self.refused = asyncio.Event()
        self._links: asyncio.Queue[Link] = asyncio.Queue()
        self._server: Server | None = None
        self.port = 0

    async def open(self) -> None:
        self._server = await serve(
            self._handle,
            "127.0.0.1",
            self.port,
            process_request=self._admit,
            process_response=self._give_token,
            max_size=MAX_MESSAGE_BYTES,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        """Drop every connection and stop listening; `open` listens again on the same port."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def link(self) -> Link:
        """Return the next connection."""
        return await asyncio.wait_for(self._links.get(), PATIENCE_SECONDS)

    async def _handle(self, socket: ServerConnection) -> None:
        link = Link(socket)
        self._links.put_nowait(link)
        await link.read()

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        if request.path in self.files:
            body = self.files[request.path]
            return Response(200, "OK", Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)
        if self.refuse_with:
            return self._refusal(socket, self.refuse_with.pop(0), "no\n")
        refusal = self.enrollments.refuse(request.headers) if self.enrollments else None
        if refusal is None:
            return None
        status, detail = refusal
        return self._refusal(socket, status, json.dumps({"status": status, "detail": detail}))

    def _refusal(self, socket: ServerConnection, status: int, body: str) -> Response:
        self.refused.set()
        return socket.respond(HTTPStatus(status), body)

    def _give_token(self, _: ServerConnection, request: Request, response: Response) -> None:
        if self.enrollments and response.status_code == 101 and (token := self.enrollments.give(request.headers)):
            response.headers["X-Agent-Token"] = token
