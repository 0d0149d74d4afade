"""A bare WebSocket server in the control plane's place: it admits or refuses agents, and follows no protocol.

The fake Go agent's own tests use it. Commands go out exactly as the test writes them, and each connection and each
answer is handed over once, in the order it came.
"""

import asyncio
import base64
import json
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosedError
from websockets.http11 import Request, Response

COMPOSE = base64.b64encode(b"services: {web: {image: nginx}}\n").decode()


class Plane:
    """The other end: hands each connection and each answer to the test as it comes."""

    def __init__(self) -> None:
        self.url = ""
        self.sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.refuse_with: HTTPStatus | None = None

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(self.refuse_with, "no\n") if self.refuse_with else None

    async def talk(self, connection: ServerConnection) -> None:
        self.sockets.put_nowait(connection)
        with suppress(ConnectionClosedError):
            async for frame in connection:
                self.answers.put_nowait(json.loads(frame))

    async def final(self) -> dict[str, Any]:
        while (answer := await self.answers.get())["status"] == "IN_PROGRESS":
            pass
        return answer


def command(job_id: str, kind: str = "DEPLOY_COMPOSE", project: str = "web", **payload: object) -> str:
    if kind == "DEPLOY_COMPOSE":
        payload.setdefault("compose_file_base64", COMPOSE)
    return json.dumps({"id": job_id, "type": kind, "payload": {"project_name": project, **payload}})
