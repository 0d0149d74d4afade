"""Brings a database to this program's schema at start-up, through Alembic, in one transaction."""

import contextlib
import os
import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from control_plane.core.errors import StorageFullError
from control_plane.core.startup import StartupError
from control_plane.store.database import database_file, find_broken_reference, lay_out, open_engine, translate_error

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(url: str) -> None:
    """Run what revisions the database lacks. Does nothing to a current one.

    Raises StartupError, with one line for the operator, when the file is not a database of ours or when
    a newer program wrote it.
    """
    _create_private(url)
    # Tables that others refer to are made anew, which SQLite allows only while it does not look at references.
    engine = open_engine(url, read_only=False, pool_size=1, foreign_keys=False)
    try:
        with engine.begin() as connection:
            _refuse_newer(connection, url)
            config = Config()
            config.set_main_option("script_location", str(SCRIPTS))
            config.attributes["connection"] = connection
            before = current_revision(connection)
            command.upgrade(config, "head")
            if current_revision(connection) != before:
                _refuse_broken_references(connection, url)
    except (DatabaseError, sqlite3.Error) as error:
        full = isinstance(translate_error(error), StorageFullError)
        why = "the disk is full: make some room" if full else getattr(error, "orig", error)
        raise StartupError(f"The database {database_file(url)} cannot be opened: {why}.") from error
    finally:
        engine.dispose()


def current_revision(connection: Connection) -> str | None:
    """Return the schema revision of an open database, None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def known_revisions() -> list[str]:
    """Return the schema revisions that this program knows, the newest first."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]


def _create_private(url: str) -> None:
    """Make a missing database file for this user alone: Compose files may hold passwords. SQLite's others follow it."""
    # It is there; or it cannot be made or written, which opening it will say better.
    with contextlib.suppress(OSError, sqlite3.Error):
        os.close(os.open(database_file(url), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        lay_out(database_file(url))


def _refuse_broken_references(connection: Connection, url: str) -> None:
    broken = find_broken_reference(connection)
    if broken is not None:
        raise StartupError(
            f"The database {database_file(url)} has rows in '{broken[0]}' that refer to a {broken[1]} that is not "
            "there: look at it with `python run.py check`, and restore a backup."
        )


def _refuse_newer(connection: Connection, url: str) -> None:
    revision = current_revision(connection)
    if revision is not None and revision not in known_revisions():
        raise StartupError(
            f"The database {database_file(url)} was written by a newer control plane (schema revision {revision}): "
            "install that version again, or restore a backup made with this one."
        )
