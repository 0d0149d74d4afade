"""Once the disk has failed under the database nothing more is acknowledged: the process ends with status 70.

`strace` has the N-th call of a thread fail with EIO, and all of its later ones, as a dying disk does.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from tests.faults.acknowledged import Callers, Told, check_kept
from tests.support.faults import chance
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess
from tests.support.store import sql

FAILS = {"pwrite64": (200, 500), "fdatasync": (10, 30)}
"""Which of a thread's calls is the first to fail: later ones than a start and the first deploys make."""
EXIT_STORAGE_BROKEN = 70
PAGE_BYTES = 4096
LINE = "The disk failed under the database"


def failing_from(call: str, number: int) -> list[str]:
    inject = f"inject={call}:error=EIO:when={number}+"
    return ["strace", "-D", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A directory that a control plane has been started in."""
    made = tmp_path / "server"
    made.mkdir()
    async with ServerProcess(made):
        return made


async def deploy_until_it_ends(
    directory: Path, told: Told, wrapper: Sequence[str] = (), sabotage: str | None = None
) -> None:
    """Deploy to a server whose disk fails; AssertionError unless it ends as it should, in good time."""
    async with (
        ServerProcess(directory, wrapper=wrapper, sabotage=sabotage) as server,
        GoAgent(server.ws_url, server.agent_token, "web-1") as agent,
    ):
        await agent.connected()
        async with Callers(server, told) as callers:
            ended = asyncio.create_task(server.wait())
            going_on = asyncio.create_task(callers.told(503, 20, within_seconds=60))
            await asyncio.wait({ended, going_on}, return_when=asyncio.FIRST_COMPLETED)
            goes_on = not ended.done()
            going_on.cancel()
            if goes_on:
                os.kill(server.pid, signal.SIGKILL)
            status = await ended
        assert not goes_on, "the server goes on with a disk that has failed"
        assert status == EXIT_STORAGE_BROKEN, server.output
        assert server.stderr.count(LINE) == 1, server.output
        assert "Traceback" not in server.stderr
        check_kept(server.database_path, told)


@pytest.mark.usefixtures("strace")
@pytest.mark.promise("4")
@pytest.mark.parametrize("call", FAILS)
async def test_after_an_error_of_the_disk_nothing_is_acknowledged_and_the_process_ends(
    directory: Path, call: str
) -> None:
    told = Told()
    number = chance().randint(*FAILS[call])
    await deploy_until_it_ends(directory, told, failing_from(call, number))
    assert told.deploys
    assert set(told.statuses) <= {200, 503}
    async with ServerProcess(directory) as server:
        check_kept(server.database_path, told)


@pytest.mark.usefixtures("strace")
@pytest.mark.control("4")
async def test_the_check_finds_a_server_that_goes_on(directory: Path) -> None:
    wrapper = failing_from("fdatasync", chance().randint(*FAILS["fdatasync"]))
    with pytest.raises(AssertionError, match="goes on with a disk that has failed"):
        await deploy_until_it_ends(directory, Told(), wrapper, "broken_is_unavailable")


@pytest.mark.usefixtures("strace")
@pytest.mark.promise("4")
async def test_an_error_in_a_checkpoint_which_sqlite_keeps_quiet_ends_the_process_too(directory: Path) -> None:
    database = directory / "control_plane.db"
    told = Told()
    only_the_database = [
        "strace",
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-P",
        str(database),
        "-e",
        "inject=fdatasync:error=EIO",
    ]
    async with ServerProcess(directory, wrapper=only_the_database) as server:
        async with GoAgent(server.ws_url, server.agent_token, "web-1") as agent:
            await agent.connected()
        async with Callers(server, told, padding=200_000, agent_id=1, when_offline="queue"):
            assert await server.wait() == EXIT_STORAGE_BROKEN, server.output
    check_kept(database, told)


def remove(database: Path) -> None:
    database.unlink()


def replace_by_a_backup(database: Path) -> None:
    backup = database.with_name("backup.db")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    backup.rename(database)


def remove_wal(database: Path) -> None:
    database.with_name(f"{database.name}-wal").unlink()


@pytest.mark.promise("4")
@pytest.mark.parametrize("take_away", [remove, replace_by_a_backup, remove_wal])
async def test_a_server_does_not_go_on_with_files_that_are_no_longer_there(take_away: Callable[[Path], None]) -> None:
    async with ServerProcess() as server:
        take_away(server.database_path)
        assert await server.wait() == EXIT_STORAGE_BROKEN
        assert f"{LINE} (its files were deleted or replaced)" in server.stderr


@pytest.mark.promise("4")
async def test_a_damaged_page_that_a_reader_meets_ends_the_process() -> None:
    async with ServerProcess() as server, server.client() as client:
        await server.terminate()
        size = server.database_path.stat().st_size
        page = sql(server.database_path, "SELECT rootpage FROM sqlite_master WHERE name = 'deployment'")[0]
        assert page * PAGE_BYTES <= size
        await server.start()
        with server.database_path.open("r+b") as file:
            file.seek((page - 1) * PAGE_BYTES)
            file.write(b"\xff" * PAGE_BYTES)
        with pytest.raises(httpx.TransportError):
            await client.get("/deployments/1")  # looked for in the table itself
        assert await server.wait() == EXIT_STORAGE_BROKEN
