"""Backups that are made beside a running server and restored: what comes back, what is kept, what agents notice."""

import asyncio
import os
import signal
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from control_plane.store.database import open_engine
from control_plane.store.migrate import SCRIPTS
from tests.support.app import WEB
from tests.support.commands import done, ended, run, start
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Outcome
from tests.support.server import ServerProcess
from tests.support.store import sql

DEADLINE_SECONDS = "12"


async def deployed(server: ServerProcess, project: str, *, wait: int = 30, **fields: object) -> dict[str, object]:
    async with server.client() as client:
        body = {"project_name": project, "compose_file": WEB, **fields}
        answer = await client.post("/deploy", json=body, params={"wait": wait})
        assert answer.status_code == 200, answer.text
        document: dict[str, object] = answer.json()
        return document


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def kept_in(directory: Path) -> Path:
    """Return the database that a restore has set aside."""
    (kept,) = directory.glob("*.before-restore-*Z")
    return kept


def until_begun(directory: Path) -> None:
    """Wait until a command has begun to write its file."""
    while not any(path.stat().st_size for path in directory.glob(".*.unfinished")):
        pass


async def test_a_backup_is_one_private_file_that_says_where_the_secrets_are(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, {"API_TOKEN": None}) as server, GoAgent(server.ws_url, server.agent_token, "h"):
        await until_online(server)
        await deployed(server, "web")
        before = names(tmp_path)
        said = await done(tmp_path, "backup", "backup.db")
        assert names(tmp_path) - before == {"backup.db"}
    assert mode_of(tmp_path / "backup.db") == 0o600
    assert f"The secrets in {tmp_path}/control_plane.secrets are not in it" in said
    before = names(tmp_path)
    assert "1 deployment, 1 job" in await done(tmp_path, "check", "backup.db")
    assert names(tmp_path) == before, "whoever looks at a backup leaves nothing beside it"


async def test_an_earlier_backup_is_replaced_when_that_is_asked_for(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, GoAgent(server.ws_url, server.agent_token, "h"):
        await until_online(server)
        await done(tmp_path, "backup", "backup.db")
        await deployed(server, "web")
        await done(tmp_path, "backup", "backup.db", "--overwrite")
    assert sql(tmp_path / "backup.db", "SELECT project_name FROM deployment") == ["web"]


async def test_commands_work_without_a_server_and_on_what_a_killed_one_left(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, GoAgent(server.ws_url, server.agent_token, "h"):
        await until_online(server)
        await deployed(server, "web")
        await server.kill()
    assert "control_plane.db-wal" in names(tmp_path)
    await done(tmp_path, "backup", "backup.db")
    assert "1 deployment" in await done(tmp_path, "check")
    assert sql(tmp_path / "backup.db", "SELECT project_name FROM deployment") == ["web"]


async def test_what_is_replaced_is_kept_whole_also_when_its_server_was_killed(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, GoAgent(server.ws_url, server.agent_token, "h"):
        await until_online(server)
        await done(tmp_path, "backup", "backup.db")
        await deployed(server, "web")
        await server.kill()
        said = await done(tmp_path, "restore", "backup.db")
        kept = kept_in(tmp_path)
        assert f"The database that was there is kept as {kept}.\n" in said
        assert sql(kept, "SELECT project_name FROM deployment") == ["web"]
        assert mode_of(tmp_path / "control_plane.db") == 0o600
        assert sql(tmp_path / "control_plane.db", "SELECT count(*) FROM deployment") == [0]
        await server.start()
        # And back again.
        await server.terminate()
        await done(tmp_path, "restore", kept.name)
        assert sql(tmp_path / "control_plane.db", "SELECT project_name FROM deployment") == ["web"]


async def test_a_damaged_database_is_replaced_and_kept_with_its_wal(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        await done(tmp_path, "backup", "backup.db")
        await server.kill()
    place, wal = tmp_path / "control_plane.db", tmp_path / "control_plane.db-wal"
    left = wal.read_bytes()
    place.write_bytes(b"scratched" * 10_000)
    await done(tmp_path, "restore", "backup.db")
    kept = kept_in(tmp_path)
    assert kept.read_bytes() == b"scratched" * 10_000
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == left
    assert "control_plane.db-wal" not in names(tmp_path)
    await done(tmp_path, "check")


async def test_a_backup_is_restored_where_nothing_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    async with ServerProcess(old) as server, GoAgent(server.ws_url, server.agent_token, "h"):
        await until_online(server)
        await deployed(server, "web")
        await done(old, "backup", new / "backup.db")
    ran = await run(new, "restore", "backup.db", DATABASE_URL="sqlite:///data/cp.db")
    assert ran.status == 0, ran
    assert f"There is no {new}/data/cp.secrets" in ran.stdout
    async with ServerProcess(new, {"DATABASE_URL": "sqlite:///data/cp.db"}) as server, server.client() as client:
        assert len((await client.get("/deployments")).json()["deployments"]) == 1


async def test_a_database_behind_a_link_is_replaced_where_it_really_is(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path):
        await done(tmp_path, "backup", "backup.db")
    (tmp_path / "disk").mkdir()
    (tmp_path / "control_plane.db").rename(tmp_path / "disk" / "real.db")
    (tmp_path / "control_plane.db").symlink_to("disk/real.db")
    await done(tmp_path, "restore", "backup.db")
    assert (tmp_path / "control_plane.db").is_symlink()
    assert kept_in(tmp_path / "disk").name.startswith("real.db.")


async def test_a_backup_of_an_older_version_is_restored_migrated_and_can_become_shorter(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    sql(old, "CREATE TABLE t (id)")
    sql(old, "DROP TABLE t")
    engine = open_engine(f"sqlite:///{old}", read_only=False, pool_size=1)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    assert sql(old, "PRAGMA auto_vacuum") == [0]
    said = await done(tmp_path, "restore", "old.db")
    assert "Its schema, revision 0001, is older and is brought up to date at the next start." in said
    assert "0001, brought up to date at the next start" in await done(tmp_path, "check")
    async with ServerProcess(tmp_path):
        assert "up to date" in await done(tmp_path, "check")
    assert sql(tmp_path / "control_plane.db", "PRAGMA auto_vacuum") == [2]
    assert mode_of(tmp_path / "control_plane.db") == 0o600


@pytest.mark.parametrize("arguments", [["backup", "new.db"], ["restore", "large.db"]])
async def test_a_command_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path, arguments: list[str]) -> None:
    async with ServerProcess(tmp_path):
        pass
    place = tmp_path / "control_plane.db"
    sql(place, "INSERT INTO compose_file VALUES ('f', zeroblob(80000000), '')")
    os.link(place, tmp_path / "large.db")
    if arguments[0] == "restore":
        place.unlink()
    before = names(tmp_path)
    process = await start(tmp_path, *arguments)
    await asyncio.to_thread(until_begun, tmp_path)
    process.send_signal(signal.SIGTERM)
    ran = await ended(process)
    assert ran.status == 128 + signal.SIGTERM, ran
    assert ran.stderr.strip() == "Ended before it was done; nothing was changed."
    # SQLite's own, of a database that a process has died on; whoever opens it next takes them away.
    assert names(tmp_path) - before <= {"control_plane.db-wal", "control_plane.db-shm"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_what_root_restores_belongs_to_the_owner_of_the_database(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path):
        await done(tmp_path, "backup", "backup.db")
    (tmp_path / "control_plane.db.lock").unlink()
    os.chown(tmp_path / "control_plane.db", 12345, 12346)
    await done(tmp_path, "restore", "backup.db")
    for name in ("control_plane.db", "control_plane.db.lock"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid) == (12345, 12346)


async def test_after_a_restore_agents_carry_on_from_the_past_that_came_back(tmp_path: Path) -> None:
    """What waited is sent, what was in flight ends at its deadline, what the past does not know is ignored."""
    settings = {"DEPLOY_TIMEOUT_SECONDS": DEADLINE_SECONDS}
    async with ServerProcess(tmp_path, settings) as server, GoAgent(server.ws_url, server.agent_token, "h") as agent:
        await until_online(server)
        await deployed(server, "before")
        agent.hold("in-flight")
        in_flight = (await deployed(server, "in-flight", wait=0))["job_id"]
        await agent.received(str(in_flight))
        agent.unplug()
        await until_online(server, count=0)
        waiting = (await deployed(server, "waiting", wait=0, agent_id=1, when_offline="queue"))["job_id"]
        said = await done(tmp_path, "backup", "backup.db")
        agent.plug_in()
        await agent.connected(2)
        agent.release("in-flight")
        for job in (in_flight, waiting):
            await agent.answered(str(job))
        after = await deployed(server, "after")
        await server.terminate()
        said = await done(tmp_path, "restore", "backup.db")
        assert "1 jobs wait to be sent, and 1 are in flight" in said
        await server.start()
        await until_online(server)
        await agent.received(str(waiting), times=2)
        # The agent speaks of a job that this past has never had.
        await agent.say(str(after["job_id"]), Outcome("COMPLETED", "done"))
        async with server.client() as client:
            ended_jobs = [
                (await client.get(f"/jobs/{job}", params={"wait": 25})).json() for job in (waiting, in_flight)
            ]
            assert [job["status"] for job in ended_jobs] == ["completed", "failed"]
            assert ended_jobs[1]["reason"] in {"execution_timeout", "agent_lost"}
            assert (await client.get(f"/jobs/{after['job_id']}")).status_code == 404
        assert (await deployed(server, "after"))["status"] == "completed"
        assert "answer_ignored" in server.stderr
        assert await server.terminate() == 0
        assert "rows        ok" in await done(tmp_path, "check")


async def until_online(server: ServerProcess, count: int = 1) -> None:
    """Wait until so many agents are connected."""
    async with server.client() as client, asyncio.timeout(20):
        while len((await client.get("/agents", params={"status": "online"})).json()["agents"]) != count:
            pass


def test_the_sqlite_of_this_python_keeps_a_copy_consistent_within_a_transaction(tmp_path: Path) -> None:
    """What the backup rests on: under a read transaction it never starts over, and sees nothing that comes later."""
    source = sqlite3.connect(tmp_path / "source.db", isolation_level=None)
    source.execute("PRAGMA journal_mode=WAL")
    source.execute("CREATE TABLE t (filling)")
    source.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 200)
    reader = sqlite3.connect(tmp_path / "source.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT 1 FROM t").fetchone()
    target = sqlite3.connect(tmp_path / "target.db", isolation_level=None)
    remaining: list[int] = []

    def write_meanwhile(_status: int, left: int, _pages: int) -> None:
        remaining.append(left)
        source.execute("INSERT INTO t VALUES ('later')")

    reader.backup(target, pages=10, progress=write_meanwhile)
    assert remaining == sorted(remaining, reverse=True)
    assert target.execute("SELECT count(*) FROM t").fetchone() == (200,)
    for connection in (source, reader, target):
        connection.close()
