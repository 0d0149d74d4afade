"""A file that cannot be restored, or a place that cannot take a backup: one line says why, and nothing is touched."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.store.migrate import migrate
from tests.support.commands import done, refused, run
from tests.support.server import ServerProcess
from tests.support.store import sql


@pytest.fixture(scope="module")
def database_made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "control_plane.db"
    migrate(f"sqlite:///{path}")
    sql(path, "INSERT INTO compose_file VALUES ('f', zeroblob(100000), '2026-01-01 00:00:00.000000+00:00')")
    sql(path, "PRAGMA journal_mode=DELETE")
    return path


@pytest.fixture
def directory(tmp_path: Path, database_made_once: Path) -> Path:
    """A directory with a database, a good backup of it, and nobody at work."""
    made = tmp_path / "server"
    made.mkdir()
    shutil.copy(database_made_once, made / "control_plane.db")
    shutil.copy(database_made_once, made / "backup.db")
    return made


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _text(file: Path) -> None:
    file.write_text("not a database\n" * 1000)


def _missing(file: Path) -> None:
    file.unlink()


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _scratched(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(8192)
        opened.write(os.urandom(4096))


def _header_only(file: Path) -> None:
    os.truncate(file, 100)


def _newer(file: Path) -> None:
    sql(file, "UPDATE alembic_version SET version_num = '9999'")


def _of_another_program(file: Path) -> None:
    file.unlink()
    sql(file, "CREATE TABLE bookmarks (url)")


def _broken_references(file: Path) -> None:
    sql(file, "INSERT INTO job_log VALUES ('no-such-job', 0, '')")


def _the_database(file: Path) -> None:
    file.unlink()
    file.symlink_to("control_plane.db")


def _leads_nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("gone.db")


BAD_SOURCES: list[tuple[Callable[[Path], None], str]] = [
    (_empty, "backup.db is empty: name a backup."),
    (_text, "backup.db is not a backup: it is not a SQLite database."),
    (_missing, "There is no file backup.db: name a backup."),
    (_directory, "backup.db is a directory: name a backup in it."),
    (_pipe, "backup.db is not a file: name a backup."),
    (_cut_off, "backup.db is damaged: "),
    (_scratched, "backup.db is damaged: "),
    (_header_only, "backup.db "),
    (_newer, "backup.db was written by a newer control plane (schema revision 9999): install that version first."),
    (_of_another_program, "backup.db is a SQLite database, but not one of a control plane."),
    (_broken_references, "backup.db is not whole: 1 of job_log refer to a job that is not there."),
    (_the_database, "backup.db is the database itself: name a backup."),
    (_leads_nowhere, "There is no file backup.db: name a backup."),
]


@pytest.mark.parametrize(("spoil", "line"), BAD_SOURCES, ids=[spoil.__name__[1:] for spoil, _ in BAD_SOURCES])
async def test_a_bad_backup_is_not_restored(directory: Path, spoil: Callable[[Path], None], line: str) -> None:
    spoil(directory / "backup.db")
    assert (await refused(directory, "restore", "backup.db")).startswith(line)


def _taken(target: Path) -> None:
    target.write_text("precious")


def _a_link(target: Path) -> None:
    target.symlink_to("control_plane.db")


def _nothing(target: Path) -> None:
    assert not target.exists()


BAD_TARGETS: list[tuple[Callable[[Path], None], list[str], str]] = [
    (_taken, ["new.db"], "new.db exists: name another file, or allow to replace it with --overwrite."),
    (_taken, ["new.db", "--overwrite"], "new.db is not a backup, and is not replaced: name another file."),
    (_a_link, ["new.db", "--overwrite"], "new.db is a symbolic link: name a file."),
    (Path.mkdir, ["new.db"], "new.db is a directory: name a file in it."),
    (_nothing, ["control_plane.db", "--overwrite"], "control_plane.db is the database itself: name another file."),
    (_nothing, ["nowhere/new.db"], "There is no directory nowhere: make it, or name another file."),
    (_nothing, ["n" * 300], "nnnn"),
]


@pytest.mark.parametrize(("prepare", "arguments", "line"), BAD_TARGETS)
async def test_a_backup_replaces_nothing_but_a_backup_and_that_only_when_told(
    directory: Path, prepare: Callable[[Path], None], arguments: list[str], line: str
) -> None:
    prepare(directory / "new.db")
    assert (await refused(directory, "backup", *arguments)).startswith(line)


async def test_a_damaged_database_makes_no_backup(directory: Path) -> None:
    _scratched(directory / "control_plane.db")
    assert "control_plane.db is damaged: " in await refused(directory, "backup", "new.db")


@pytest.mark.parametrize("command", ["backup", "check"])
async def test_where_no_database_is_the_setting_is_named(directory: Path, command: str) -> None:
    arguments = [command, "new.db"] if command == "backup" else [command]
    line = await refused(directory, *arguments, DATABASE_URL="sqlite:///elsewhere.db")
    assert "There is no database" in line
    assert "set DATABASE_URL" in line


async def test_the_other_settings_do_not_matter(directory: Path) -> None:
    ran = await run(directory, "backup", "new.db", HOST="no such host", PORT="http")
    assert ran.status == 0, ran


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["bakcup", "x"], "'bakcup'"), (["backup"], "FILE"), (["restore", "a", "b"], "b"), (["check", "--fix"], "--fix")],
)
async def test_a_command_that_is_not_understood_gets_one_line(tmp_path: Path, arguments: list[str], word: str) -> None:
    line = await refused(tmp_path, *arguments)
    assert word in line
    assert "--help" in line


async def test_help_tells_of_every_command(tmp_path: Path) -> None:
    told = await done(tmp_path, "--help")
    assert all(f"    {command} " in told for command in ("backup", "restore", "check"))


async def test_nothing_is_restored_under_a_running_control_plane(directory: Path) -> None:
    async with ServerProcess(directory) as server:
        ran = await run(directory, "restore", "backup.db")
        assert ran.status == 2
        place = directory / "control_plane.db"
        assert ran.stderr == f"A control plane runs on {place}: stop it, restore, and start it again.\n"
        (directory / "link.db").symlink_to("control_plane.db")
        ran = await run(directory, "restore", "backup.db", DATABASE_URL="sqlite:///link.db")
        assert ran.status == 2
        assert await server.terminate() == 0
    assert "Restored" in await done(directory, "restore", "backup.db")


async def test_nothing_is_restored_while_another_program_has_the_database_open(directory: Path) -> None:
    connection = sqlite3.connect(directory / "control_plane.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("SELECT * FROM agent").fetchall()
    # Nothing here reads the file: the end of that would end the locks of this process.
    ran = await run(directory, "restore", "backup.db")
    assert ran.status == 2
    assert "another program holds it locked" in ran.stderr
    connection.close()
