"""On a full disk new deploys are refused and what was accepted is carried through; room is all that it needs."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.faults.acknowledged import Callers, Told, check_kept
from tests.faults.disks import Disk
from tests.support.app import WEB
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess
from tests.support.store import sql

HELD = 40
"""Deploys that run while the disk fills."""
LAND_SECONDS = 6


@dataclass
class Scene:
    """A server with an agent at work, on a disk that is full by now."""

    server: ServerProcess
    client: httpx.AsyncClient
    agent: GoAgent
    held: list[str] = field(default_factory=list)
    """Jobs that the agent runs until their projects are released."""
    told: Told = field(default_factory=Told)

    async def hold(self) -> None:
        """Have the agent run some deploys that do not end."""
        for number in range(HELD):
            self.agent.hold(f"held-{number}")
            body = {"project_name": f"held-{number}", "compose_file": WEB, "agent_id": 1}
            self.held.append((await self.client.post("/deploy", json=body)).json()["job_id"])
        await self.agent.started(HELD)

    async def land_results(self) -> None:
        """Let the agent finish; AssertionError unless all its answers are stored soon."""
        for number, job in enumerate(self.held):
            self.agent.release(f"held-{number}")
            await self.agent.answered(job)  # two at once would be the end of the installed agent's process
        for job in self.held:
            ended = (await self.client.get(f"/jobs/{job}", params={"wait": LAND_SECONDS})).json()
            assert ended["status"] == "completed", "the result of work in flight has not landed"


@contextlib.asynccontextmanager
async def filled_under_load(disk: Disk, sabotage: str | None = None) -> AsyncIterator[Scene]:
    """Run a server whose disk another program has filled while deploys came in, until they were refused."""
    env = {"DATABASE_URL": f"sqlite:///{disk.path}/control_plane.db"}
    async with (
        ServerProcess(env=env, sabotage=sabotage) as server,
        server.client() as client,
        GoAgent(server.ws_url, server.agent_token, "at-work") as agent,
    ):
        await agent.connected()
        scene = Scene(server, client, agent)
        await scene.hold()
        async with (
            GoAgent(server.ws_url, server.agent_token, "busy") as busy,
            Callers(server, scene.told, agent_id=2, when_offline="queue") as callers,
        ):
            await busy.connected()
            await callers.told(200, 20)
            disk.fill()
            await callers.told(507, 50)
        yield scene


@pytest.mark.promise("3")
@pytest.mark.promise("20")
async def test_on_a_full_disk_results_land_deploys_leave_no_row_and_room_is_all_it_needs(small_disk: Disk) -> None:
    async with filled_under_load(small_disk) as scene:
        await scene.land_results()
        refused = await scene.client.post("/deploy", json={"project_name": "refused", "compose_file": WEB})
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert "Retry-After" in refused.headers
        assert scene.agent.connections == 1
        assert scene.server.stderr.count('"disk_full"') == 1
        small_disk.clear()
        async with Callers(scene.server, scene.told, agent_id=2, when_offline="queue") as callers:
            await callers.told(200, 50)
        assert set(scene.told.statuses) == {200, 507}
        await scene.server.kill()
        check_kept(scene.server.database_path, scene.told)
        rows = sql(scene.server.database_path, "SELECT count(*) FROM deployment UNION ALL SELECT count(*) FROM job")
        assert rows == [HELD + len(scene.told.deploys)] * 2, "a refused deploy has left a row"


@pytest.mark.control("3")
async def test_without_the_reserve_results_do_not_land(small_disk: Disk) -> None:
    async with filled_under_load(small_disk, "no_reserve") as scene:
        with pytest.raises(AssertionError, match="has not landed"):
            await scene.land_results()
        small_disk.clear()


@pytest.mark.promise("3")
async def test_a_control_plane_starts_on_a_full_disk_and_carries_on_with_what_was_accepted(small_disk: Disk) -> None:
    async with filled_under_load(small_disk) as scene:
        await scene.server.kill()
        small_disk.fill()
        await scene.server.start()
        await scene.agent.connected(2)
        await scene.land_results()
