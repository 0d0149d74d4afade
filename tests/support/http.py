"""HTTP clients for tests: `client_of` drives an app without a socket, `serving` runs it under a real uvicorn.

Used by tests of `api/`. Both close what they open; `serving` returns only once its port takes connections.
`untidied` asks for a path as it is written, where httpx would tidy up its dots and slashes.
"""

import asyncio
import contextlib
import http.client
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.types import ASGIApp

from tests.support.served import served


def client_of(app: ASGIApp, *, token: str | None = None) -> httpx.AsyncClient:
    """Return a client whose requests go straight into `app`, with `token` as bearer if given.

    To be used with `async with`. An error that the app lets through is raised in the test.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://control-plane", headers=headers)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[tuple[str, int]]:
    """Run `app` under uvicorn, as run.py does, on a free loopback port; yield its host and port."""
    async with served(uvicorn.Config(app, http="httptools", ws="none", log_config=None, lifespan="auto")) as address:
        yield address


async def untidied(
    url: str, method: str, path: str, headers: Mapping[str, str], body: Any = None
) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of the answer of the server at `url` to a request for exactly `path`."""
    content = None if body is None else json.dumps(body).encode()

    def ask() -> tuple[int, dict[str, Any]]:
        at = urlsplit(url)
        with contextlib.closing(http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)) as connection:
            connection.request(method, path, content, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    return await asyncio.to_thread(ask)
