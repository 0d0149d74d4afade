"""Fixtures of the Python agent's process tests: a stage with stand-ins for the control plane and for Docker.

Modules that run the agent otherwise, in dry run or against the real server, define their own under these names.
For the installer: a clean host, and a control plane that enrols.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.agent_harness import AgentProcess, Stage, set_stage
from tests.support.clean_host import CleanHost
from tests.support.control_plane_stand_in import ControlPlaneStandIn, Link
from tests.support.docker_stand_in import StandInDocker
from tests.support.installing import enrolling_plane


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with set_stage(tmp_path) as ready:
        yield ready


@pytest.fixture
def control_plane(stage: Stage) -> ControlPlaneStandIn:
    return stage.control_plane


@pytest.fixture
def docker(stage: Stage) -> StandInDocker:
    return stage.docker


@pytest.fixture
def agent(stage: Stage) -> AgentProcess:
    return stage.agent


@pytest.fixture
async def link(stage: Stage) -> Link:
    await stage.agent.start()
    return await stage.control_plane.link()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[CleanHost]:
    host = CleanHost(tmp_path)
    yield host
    host.close()


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlaneStandIn]:
    async with enrolling_plane() as plane:
        yield plane
