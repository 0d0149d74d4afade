"""A backup taken at any moment of a busy server is one consistent point in time, and a server starts on it.

Everything that was acknowledged before it began is in it, and what came later is there without gaps or not at all.
"""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.acknowledged import Callers, Told, check_kept
from tests.faults.disks import Disk
from tests.support.app import WEB
from tests.support.commands import done, run
from tests.support.faults import chance
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

BACKUPS = 4
BETWEEN = (1, 80)
"""So many more deploys are acknowledged before the next backup begins."""
LAST_CHECKPOINT_IS_LONG_AGO = 150
"""Deploys after which the newest are certainly in the WAL alone: it takes some thousand to fill it."""

Take = Callable[[ServerProcess, Path], Awaitable[None]]


@dataclass(frozen=True)
class Taken:
    """A backup, and what had been acknowledged when it began."""

    path: Path
    told: Told


async def by_command(server: ServerProcess, target: Path) -> None:
    """Take a backup as operators do."""
    await done(server.directory, "backup", target)


async def by_copying_the_file(server: ServerProcess, target: Path) -> None:
    """Take what operators may think to be a backup."""
    await asyncio.to_thread(shutil.copyfile, server.database_path, target)


async def taken_under_load(place: Path, take: Take, times: int, between: tuple[int, int]) -> list[Taken]:
    """Take backups of a server that is deploying, at moments of chance."""
    random, told, backups = chance(), Told(), []
    async with ServerProcess() as server, GoAgent(server.ws_url, server.agent_token, "web-1") as agent:
        await agent.connected()
        async with Callers(server, told) as callers:
            for number in range(times):
                await callers.told(200, random.randint(*between))
                begun = Told(deploys=list(told.deploys))
                await take(server, place / f"{number}.db")
                backups.append(Taken(place / f"{number}.db", begun))
    return backups


def check_consistent(backup: Taken) -> None:
    """Hold a backup against what callers had been told, and against itself. AssertionError if it is not one moment."""
    check_kept(backup.path, backup.told)
    with contextlib.closing(sqlite3.connect(backup.path)) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM deployment ORDER BY id")]
        # Ids are given in the order of commits.
        assert ids == list(range(1, len(ids) + 1))
        jobs = connection.execute("SELECT count(*) FROM job WHERE command_type = 'DEPLOY_COMPOSE'").fetchone()
        assert jobs == (len(ids),)


@pytest.mark.promise("22")
async def test_backups_at_any_moment_of_a_busy_server_hold_all_that_was_acknowledged(tmp_path: Path) -> None:
    backups = await taken_under_load(tmp_path, by_command, BACKUPS, BETWEEN)
    for backup in backups:
        assert len(backup.told.deploys) > 0
        check_consistent(backup)
    restored = tmp_path / "restored"
    restored.mkdir()
    await done(restored, "restore", backups[-1].path)
    await carries_on(restored, backups[-1])


async def carries_on(directory: Path, backup: Taken) -> None:
    """Start a server on what was restored: what was acknowledged is there, and new work is done."""
    async with (
        ServerProcess(directory, {"DEPLOY_TIMEOUT_SECONDS": "1"}) as server,
        server.client() as client,
        GoAgent(server.ws_url, server.agent_token, "web-1") as agent,
    ):
        await agent.connected()
        last = backup.told.deploys[-1]
        assert (await client.get(f"/deployments/{last.deployment_id}")).json()["project_name"] == last.project
        answer = await client.post("/deploy", json={"project_name": "new", "compose_file": WEB}, params={"wait": 20})
        assert answer.json()["status"] == "completed", answer.text
        assert "ok" in (await done(directory, "check"))
        assert await server.terminate() == 0


@pytest.mark.control("22")
async def test_the_check_finds_what_a_copy_of_the_file_has_lost(tmp_path: Path) -> None:
    few = (LAST_CHECKPOINT_IS_LONG_AGO, LAST_CHECKPOINT_IS_LONG_AGO)
    (copy,) = await taken_under_load(tmp_path, by_copying_the_file, 1, few)
    with pytest.raises((AssertionError, sqlite3.DatabaseError)):
        check_consistent(copy)


async def test_a_backup_that_its_disk_has_no_room_for_is_not_there_at_all(small_disk: Disk, tmp_path: Path) -> None:
    directory = tmp_path / "server"
    directory.mkdir()
    async with ServerProcess(directory) as server:
        await done(server.directory, "backup", small_disk.path / "earlier.db")
        small_disk.fill()
        before = sorted(path.name for path in small_disk.path.iterdir())
        for target, more in (("new.db", []), ("earlier.db", ["--overwrite"])):
            ran = await run(server.directory, "backup", small_disk.path / target, *more)
            assert ran.status == 2, ran
            assert ran.stderr.endswith("there is no room on its disk.\n")
            assert ran.stderr.count("\n") == 1
        assert sorted(path.name for path in small_disk.path.iterdir()) == before
        await done(server.directory, "check", small_disk.path / "earlier.db")


async def test_a_restore_that_the_disk_has_no_room_for_leaves_the_database_as_it_was(small_disk: Disk) -> None:
    place = small_disk.path / "server"
    place.mkdir()
    async with ServerProcess(place):
        await done(place, "backup", "backup.db")
    (place / "control_plane.db.reserve").unlink()
    small_disk.fill()
    before = (place / "control_plane.db").read_bytes()
    ran = await run(place, "restore", "backup.db")
    assert ran.status == 2, ran
    assert "there is no room" in ran.stderr
    assert (place / "control_plane.db").read_bytes() == before
    assert not list(place.glob(".*")) + list(place.glob("*before*"))
