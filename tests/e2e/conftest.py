"""What the end-to-end tests start: the real server, the real agent, and a project in the real engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.agent_process import AgentProcess
from tests.support.docker import events, project, require_docker, web_image
from tests.support.server import ServerProcess

__all__ = ["events", "project", "web_image"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    # From a hook and not from a fixture: pytest then tells of all skips in one line.
    if item.get_closest_marker("docker"):
        require_docker()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    directory = tmp_path / "server"
    directory.mkdir()
    async with ServerProcess(directory) as running:
        yield running


@pytest.fixture
async def agent(server: ServerProcess, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    async with AgentProcess(server, tmp_path / "projects") as running:
        yield running


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client
