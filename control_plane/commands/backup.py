"""`backup FILE`: one moment of the database in one file, beside a running server or without one.

The file is whole, checked and on the disk, or it is not there. Nothing that exists is written over unless asked.
"""

import os
import sqlite3
import stat
import time
from pathlib import Path

from control_plane.commands.console import ProgressLine, say, size_of
from control_plane.commands.new_files import publish, sync_directory, unfinished
from control_plane.commands.refusals import CommandError, not_copied, reason_of
from control_plane.commands.verifying import verify
from control_plane.secrets import secrets_path
from control_plane.store.copying import copy_database

MAGIC = b"SQLite format 3\0"


def back_up(database: Path, target: Path, *, overwrite: bool) -> None:
    """Write a backup of `database` to `target` and say so. Raises CommandError; then nothing was changed.

    `overwrite` replaces an earlier backup under that name, and nothing else.
    """
    began = time.monotonic()
    check_is_there(database)
    _check_target(database, target, overwrite=overwrite)
    with unfinished(target) as copy, ProgressLine() as progress:
        try:
            copy_database(database, copy, progress.copied)
        except (sqlite3.Error, OSError) as error:
            raise not_copied(database, target, error) from None
        progress.show("Checking the copy")
        verify(copy, database)
        _put(copy, target, overwrite=overwrite)
    say(f"Backed up {database} to {target}: {size_of(target)}, checked, in {time.monotonic() - began:.1f} s.")
    if (kept_apart := secrets_path(database)).exists():
        say(f"The secrets in {kept_apart} are not in it: keep a copy of that file as well.")


def check_is_there(database: Path) -> None:
    """Raise CommandError unless there is a database file."""
    if not database.is_file():
        raise CommandError(f"There is no database {database}: set DATABASE_URL as it is set for the control plane.")
    if database.stat().st_size == 0:
        raise CommandError(f"The database {database} is empty: no control plane has run on it.")


def _check_target(database: Path, target: Path, *, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise CommandError(f"There is no directory {target.parent}: make it, or name another file.")
    try:
        found = target.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {reason_of(error)}.") from None
    if stat.S_ISDIR(found.st_mode):
        raise CommandError(f"{target} is a directory: name a file in it.")
    if stat.S_ISLNK(found.st_mode):
        raise CommandError(f"{target} is a symbolic link: name a file.")
    if database.exists() and os.path.samestat(database.stat(), found):
        raise CommandError(f"{target} is the database itself: name another file.")
    if not overwrite:
        raise CommandError(f"{target} exists: name another file, or allow to replace it with --overwrite.")
    if not _is_database(target):
        raise CommandError(f"{target} is not a backup, and is not replaced: name another file.")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _put(copy: Path, target: Path, *, overwrite: bool) -> None:
    try:
        if overwrite:
            copy.replace(target)
            sync_directory(target.parent)
        else:
            publish(copy, target)
    except FileExistsError:
        raise CommandError(f"{target} has appeared meanwhile and is left as it is: name another file.") from None
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {reason_of(error)}.") from None
