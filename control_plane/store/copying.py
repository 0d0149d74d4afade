"""Copies of a database: one moment of it in one file, taken while others write. For the commands backup and restore.

SQLite's backup, page by page, under one read transaction: what is committed meanwhile goes to the WAL and is not
seen, so the copy never starts over, and the writer never waits for it. A copy has no WAL of its own.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from control_plane.store.database import BUSY_TIMEOUT_SECONDS

PAGES_AT_ONCE = 1024
"""4 MiB, synced and followed by as long a rest as that took: half of the disk's time stays for the server's commits.

On a server of 440 MiB that did nothing but deploy, on two cores, deploys became slower by a fifth while a backup was
made; with syncs of 32 MiB and no rests by two fifths.
"""

STEPS_BETWEEN_CALLS = 100_000

Progress = Callable[[int, int], None]
"""Takes how many of how many pages are copied."""


def open_to_read(path: Path, *, at_rest: bool = False) -> sqlite3.Connection:
    """Open a database, also one that a control plane runs on, without the right to change it. Raises sqlite3.Error.

    `at_rest`: a file that nobody writes. It is left exactly as it is, unless a WAL beside it must be read as well.
    """
    wal = path.with_name(f"{path.name}-wal")
    mode = "immutable=1" if at_rest and not wal.exists() else "mode=rw"
    uri = f"file:{quote(str(path.resolve()))}?{mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    connection.execute("PRAGMA query_only=ON")
    _stay_responsive(connection)
    return connection


def _stay_responsive(connection: sqlite3.Connection) -> None:
    """Let signals be handled while a statement runs for long."""
    connection.set_progress_handler(lambda: 0, STEPS_BETWEEN_CALLS)


def copy_database(source: Path, target: Path, on_progress: Progress, *, at_rest: bool = False) -> None:
    """Copy one moment of `source` into `target`, which is empty, and write it to the disk.

    Raises sqlite3.Error and OSError; what is in `target` is of no use then.
    """
    file = os.open(target, os.O_WRONLY)
    try:
        with contextlib.closing(open_to_read(source, at_rest=at_rest)) as reader:
            # From its first read on the transaction sees that moment only.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            _copy_pages(reader, target, file, on_progress)
        os.fsync(file)
    finally:
        os.close(file)


def _copy_pages(reader: sqlite3.Connection, target: Path, file: int, on_progress: Progress) -> None:
    def step(_status: int, remaining: int, pages: int) -> None:
        began = time.monotonic()
        os.fdatasync(file)
        time.sleep(time.monotonic() - began)
        on_progress(pages - remaining, pages)

    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as writer:
        # A copy that is not completed is thrown away: it needs neither a journal nor a sync in between.
        writer.execute("PRAGMA journal_mode=OFF")
        writer.execute("PRAGMA synchronous=OFF")
        reader.backup(writer, pages=PAGES_AT_ONCE, progress=step)
        # The header of the original asks for a WAL; whoever reads the copy shall not have to make one.
        writer.execute("PRAGMA journal_mode=DELETE")


def can_become_shorter(path: Path) -> bool:
    """Whether the space of removed rows can be given back while the database is used (see `store.space`)."""
    with contextlib.closing(open_to_read(path, at_rest=True)) as reader:
        return bool(reader.execute("PRAGMA auto_vacuum").fetchone()[0])


def rebuild(path: Path) -> None:
    """Write a database that nobody uses anew, as one that can become shorter. Raises sqlite3.Error, OSError.

    It goes through the file `<path>-anew`, which is left where something fails.
    """
    anew = path.with_name(f"{path.name}-anew")
    anew.touch(mode=0o600, exist_ok=False)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        _stay_responsive(writer)
        writer.execute("PRAGMA auto_vacuum=INCREMENTAL")
        writer.execute("VACUUM INTO ?", (str(anew),))
    anew.replace(path)


def settle(path: Path) -> None:
    """Bring what is in the WAL into the database, and make it one file that nobody has open.

    Raises sqlite3.OperationalError while another process has it open.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as writer:
        (mode,) = writer.execute("PRAGMA journal_mode=DELETE").fetchone()
        if mode != "delete":
            raise sqlite3.OperationalError("database is locked")
