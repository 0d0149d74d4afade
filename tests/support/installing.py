"""What tests of the installer share: where it puts things, and a control plane that serves the agent and enrols it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from control_plane.api.agent_file import agent_file
from control_plane.api.routes_install import installer
from tests.support.control_plane_stand_in import ControlPlaneStandIn, Enrollments

ENROLLMENT = "ide_CanaryOfTheEnrolmentToken"
NEWER = "ide_CanaryOfANewerEnrolmentToken"
STATE = "var/lib/instadeploy-agent"
ENV = "etc/instadeploy-agent.env"
UNIT = "etc/systemd/system/instadeploy-agent.service"
AGENT = "opt/instadeploy-agent/agent.pyz"
STARTED = ["daemon-reload", "enable --quiet instadeploy-agent.service", "restart instadeploy-agent.service"]


@asynccontextmanager
async def enrolling_plane() -> AsyncIterator[ControlPlaneStandIn]:
    """Yield a control plane that knows ENROLLMENT and serves what the installer fetches."""
    plane = ControlPlaneStandIn()
    plane.enrollments = Enrollments(ENROLLMENT)
    plane.files = {"/health": b"{}", "/agent.pyz": agent_file().content}
    await plane.open()
    try:
        yield plane
    finally:
        await plane.close()


def script(plane: ControlPlaneStandIn) -> str:
    """Return the installer as `plane` would serve it."""
    return installer(f"http://127.0.0.1:{plane.port}", agent_file())


def enrollments(plane: ControlPlaneStandIn) -> Enrollments:
    """Return the tokens of `plane`."""
    assert plane.enrollments is not None
    return plane.enrollments
