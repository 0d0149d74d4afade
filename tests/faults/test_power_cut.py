"""A deploy that was answered survives a power cut: what is on the disk at that instant has every one.

The database is on an ext4 of its own, whose page cache is lost with the power: only what was synced has come to
the file below it. That file is copied while the server stands still, and mounted as after a cut.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.acknowledged import Callers, Told, check_kept
from tests.faults.disks import Disk, copy_as_it_is, mounted_ext4
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

ACKNOWLEDGED = 100
DATABASE = "control_plane.db"

pytestmark = pytest.mark.usefixtures("loop")


@contextlib.asynccontextmanager
async def deployed_to(disk: Disk, told: Told, sabotage: str | None) -> AsyncIterator[None]:
    """Run a server whose database is on `disk`, which is frozen under load once some deploys were acknowledged."""
    env = {"DATABASE_URL": f"sqlite:///{disk.path / DATABASE}"}
    async with (
        ServerProcess(env=env, sabotage=sabotage) as server,
        GoAgent(server.ws_url, server.agent_token, "web-1") as agent,
    ):
        await agent.connected()
        # What is cut off is what was written lately; a file system that never synced would have nothing at all.
        disk.sync()
        async with Callers(server, told) as callers:
            await callers.told(200, ACKNOWLEDGED)
            os.kill(server.pid, signal.SIGSTOP)
            yield
            await server.kill()


async def what_a_power_cut_leaves(tmp_path: Path, told: Told, sabotage: str | None = None) -> None:
    """Deploy, cut the power, and hold what was told against what is found when it is back."""
    image, copy = tmp_path / "disk.img", tmp_path / "after.img"
    with mounted_ext4(image, tmp_path / "disk", size_mib=64) as disk:
        async with deployed_to(disk, told, sabotage):
            copy_as_it_is(image, copy)
    with mounted_ext4(copy, tmp_path / "after") as disk:
        check_kept(disk.path / DATABASE, told)


@pytest.mark.promise("2")
async def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    told = Told()
    await what_a_power_cut_leaves(tmp_path, told)
    assert len(told.deploys) >= ACKNOWLEDGED


@pytest.mark.control("2")
async def test_the_check_finds_commits_that_skip_their_fsync(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="acknowledged deploys are lost"):
        await what_a_power_cut_leaves(tmp_path, Told(), sabotage="normal_synchronous")
