"""Connections: how SQLite is opened, how reads run in threads, how the writer's connection is made.

The only code here or anywhere that knows a dialect. SQLite runs in WAL mode with synchronous=FULL, so that
what was acknowledged survives a power cut, and every write goes through the one connection of the writer.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    ScalarSelect,
    TableValuedAlias,
    bindparam,
    column,
    event,
    func,
    select,
    text,
)
from sqlalchemy import table as plain_table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, create_engine

from control_plane.core.errors import ControlPlaneError, StoreUnavailableError
from control_plane.store.disk import disk_full

READERS = 4
BUSY_TIMEOUT_SECONDS = 5
SYNCHRONOUS = "FULL"
"""An fsync before each acknowledgement: with NORMAL, every young row was lost in a simulated power cut."""
CHECKPOINT_PAGES = 4000
"""16 MiB of WAL: pages that are written again and again are copied to the database once. Default: 1000."""
LONG_WAL_BYTES = 2 * CHECKPOINT_PAGES * 4096
"""A WAL grows so long when checkpoints do not come to an end; it is cut back to this once one has."""
READ_CACHE_KIB = 16 * 1024
WRITE_CACHE_KIB = 64 * 1024
"""Most of the pages that commits touch, in a history of some 40,000 deploys."""

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()


class StorageBrokenError(Exception):
    """The disk failed under the database: nothing more may be acknowledged, the process must end."""


def open_engine(url: str, *, read_only: bool, pool_size: int, foreign_keys: bool = True) -> Engine:
    """Open an engine on `url` (`sqlite:///path`). Read-only ones cannot write by mistake."""
    engine = create_engine(
        make_url(url),
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # they hold Compose files and agents' logs, which no error may carry into ours
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_SECONDS, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={SYNCHRONOUS}",
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
            f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
            f"journal_size_limit={LONG_WAL_BYTES}",
            f"cache_size=-{READ_CACHE_KIB if read_only else WRITE_CACHE_KIB}",
            f"query_only={'ON' if read_only else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver's own transaction control would neither lock at once nor leave savepoints alone.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def checkpoint(connection: Connection) -> None:
    """Copy what the WAL has into the database, as far as no reader needs it there. Raises the driver's errors.

    Past SQLAlchemy, which would begin a transaction, in which SQLite makes no checkpoint.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def database_file(url: str) -> Path:
    """Return the database's file, absolute: a form that means the same wherever an operator reads it."""
    return Path(make_url(url).database or "").resolve()


def lay_out(path: Path) -> None:
    """Make an empty file one whose free pages can be given back, which no table's creation can make up for later."""
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        # Writes the header, and with it the setting.
        connection.execute("PRAGMA journal_mode=WAL")


def find_broken_reference(connection: Connection) -> tuple[str, str] | None:
    """Return a table that has rows that refer to nothing, and the table that they refer to; None when all is well."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    return None if broken is None else (broken[0], broken[2])


def next_ids(db: Connection, table: str, count: int) -> range:
    """Return `count` fresh, never used ids of `table`, for the writer's open transaction.

    SQLite has one writer, so the last id ever given (AUTOINCREMENT keeps it) is all there is to know.
    """
    last = db.execute(text("SELECT seq FROM sqlite_sequence WHERE name = :table"), {"table": table}).scalar()
    first = (last or 0) + 1
    return range(first, first + count)


def last_id_given(table: str) -> ScalarSelect[int]:
    """Return, for a query, the last id that was ever given in a table whose ids are not given twice; NULL for none."""
    given = plain_table("sqlite_sequence", column("name"), column("seq"))
    return select(given.c.seq).where(given.c.name == table).scalar_subquery()


@dataclass(frozen=True)
class Pairs:
    """A list of pairs as a table in a query."""

    pairs: TableValuedAlias
    first: ColumnElement[Any]
    second: ColumnElement[Any]


def each_pair(parameter: str) -> Pairs:
    """Return the pairs that `parameter` holds as JSON, `[[1, "a"], [2, "b"]]`: one statement for any number of them."""
    pairs = func.json_each(bindparam(parameter)).table_valued("value")
    first, second = (func.json_extract(pairs.c.value, path) for path in ("$[0]", "$[1]"))
    return Pairs(pairs, first, second)


def translate_error(error: Exception) -> Exception:
    """Return a new error that users can meet, or StorageBrokenError where nothing may go on; others as they are."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, sqlite3.Error):
        return error
    extended = getattr(original, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The second is what SQLite says when there is no room for the WAL's index.
        return disk_full()
    if code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        # After a failed fsync SQLite goes on acknowledging what may not be on the disk.
        return StorageBrokenError(str(original))
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or isinstance(original, sqlite3.OperationalError):
        return StoreUnavailableError("The control plane's database does not answer; try again in a few seconds.")
    return error


class Reader:
    """Runs queries in a few threads, each with a session of its own for just that query."""

    def __init__(self, url: str, on_broken: Callable[[StorageBrokenError], None]) -> None:
        """Open nothing yet. `on_broken` is called in a reader's thread when the disk has failed."""
        self._engine = open_engine(url, read_only=True, pool_size=READERS)
        self._on_broken = on_broken
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")

    async def read(self, query: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `query(session, *args)` off the event loop. Rows it returns are detached and complete.

        Raises what the query raises, database errors as StoreUnavailableError.
        """

        def run() -> T:
            with Session(self._engine, expire_on_commit=False) as session:
                return query(session, *args, **kwargs)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except ControlPlaneError:
            raise
        except Exception as error:
            told = translate_error(error)
            if isinstance(told, StorageBrokenError):
                self._on_broken(told)
            raise told from error

    def close(self) -> None:
        """End the threads and close their connections."""
        self._threads.shutdown(wait=True)
        self._engine.dispose()
