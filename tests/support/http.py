"""HTTP clients for tests: `client_of` drives an app without a socket, `serving` runs it under a real uvicorn.

Used by tests of `api/`. Both close what they open; `serving` returns only once its port takes connections.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.types import ASGIApp


def client_of(app: ASGIApp, *, token: str | None = None) -> httpx.AsyncClient:
    """Return a client whose requests go straight into `app`, with `token` as bearer if given.

    To be used with `async with`. An error that the app lets through is raised in the test.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://control-plane", headers=headers)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[tuple[str, int]]:
    """Run `app` under uvicorn, as run.py does, on a free loopback port; yield its host and port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, http="httptools", ws="none", log_config=None, lifespan="auto"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await server.ready.wait()
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        await task
        listener.close()


class _Server(uvicorn.Server):
    """Says when it takes connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
