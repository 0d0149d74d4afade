"""Fixtures of the agents' side: a control plane served exactly as run.py serves it, in the test's own loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from control_plane import serve
from control_plane.config import Settings
from control_plane.store.migrate import migrate
from tests.support.app import API_TOKEN, make_app
from tests.support.served import served
from tests.ws.fleet import Fleet

OpenFleet = Callable[..., Awaitable[Fleet]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run these tests on the server's own event loop: how it buffers, pauses and cuts is what is tested here."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
async def open_fleet(tmp_path: Path, migrated_database: bytes) -> AsyncIterator[OpenFleet]:
    """`await open_fleet(agent_ping_interval_seconds=0.2)`: a control plane with these settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(**settings: Any) -> Fleet:
            database = tmp_path / "control_plane.db"
            database.write_bytes(migrated_database)
            return await stack.enter_async_context(_running(database, settings))

        yield open_one


@pytest.fixture
async def fleet(open_fleet: OpenFleet) -> Fleet:
    return await open_fleet()


@contextlib.asynccontextmanager
async def _running(database: Path, settings: Mapping[str, Any]) -> AsyncIterator[Fleet]:
    app = make_app(database, **settings)
    config = serve._uvicorn_config(app, Settings.model_construct(**{**_DEFAULTS, **settings}))
    async with served(config) as (host, port):
        url = f"http://{host}:{port}"
        headers = {"Authorization": f"Bearer {API_TOKEN}"}
        client = httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False, verify=False)  # noqa: S501 - no TLS
        async with client:
            fleet = Fleet(app, url, client)
            async with fleet.agents:
                yield fleet


_DEFAULTS = {name: each.get_default(call_default_factory=True) for name, each in Settings.model_fields.items()}
_DEFAULTS["shutdown_grace_seconds"] = 5
