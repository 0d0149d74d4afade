"""HTTP clients for tests: `client_of` drives an app without a socket, `serving` runs it under a real uvicorn.

Used by tests of `api/`. Both close what they open; `serving` returns only once its port takes connections.
"""

import contextlib
from collections.abc import AsyncIterator

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
