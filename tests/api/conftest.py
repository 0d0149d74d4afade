"""Fixtures of the API's tests: a control plane of the test's own, and an agent that is connected to it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from control_plane.store.migrate import migrate
from tests.support.app import Site, running_site
from tests.support.go_agent import GoAgent

OpenSite = Callable[..., Awaitable[Site]]


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def open_site(tmp_path: Path, migrated_database: Path) -> AsyncIterator[OpenSite]:
    """`await open_site(max_queued_jobs_per_agent=2)`: a control plane with these settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(**settings: Any) -> Site:
            running = running_site(tmp_path / "control_plane.db", migrated=migrated_database, **settings)
            return await stack.enter_async_context(running)

        yield open_one


@pytest.fixture
async def site(open_site: OpenSite) -> Site:
    return await open_site()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_site(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> AsyncIterator[Site]:
    """A control plane with one agent, `host-1`, for a module whose tests leave nothing behind."""
    database = tmp_path_factory.mktemp("shared") / "control_plane.db"
    async with running_site(database, migrated=migrated_database) as site:
        await site.agent()
        yield site


@pytest.fixture
async def agent(site: Site) -> GoAgent:
    return await site.agent()
