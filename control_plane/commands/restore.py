"""`restore FILE`: puts a backup in the place of the database, which is kept beside it.

Only while no control plane runs on the database. The backup is read and left alone; its copy is checked before
anything is moved, and each move is one step, so that at every moment there is a whole database in its place.
"""

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from control_plane.claim import claim_database
from control_plane.commands.backup import MAGIC
from control_plane.commands.console import ProgressLine, say, size_of
from control_plane.commands.new_files import sync_directory, unfinished
from control_plane.commands.refusals import CommandError, not_copied, reason_of
from control_plane.commands.verifying import Verified, verify
from control_plane.ownership import hand_over
from control_plane.secrets import secrets_path
from control_plane.store.copying import can_become_shorter, copy_database, rebuild, settle


def restore(database: Path, source: Path) -> None:
    """Put the backup `source` in the place of `database` and say what that means. Raises CommandError.

    Then nothing was changed, except that a directory for the database may have been made.
    """
    place = database.resolve()
    _check_source(source, place)
    _claim(place)
    with ProgressLine() as progress, unfinished(place) as copy:
        try:
            copy_database(source, copy, progress.copied, at_rest=True)
            progress.show("Checking it")
            verified = verify(copy, source)
            if not can_become_shorter(copy):
                rebuild(copy)
            _finish(copy, place)
        except (sqlite3.Error, OSError) as error:
            raise not_copied(source, place, error) from None
        kept = _swap(copy, place)
    _tell(source, database, kept, verified)


def _check_source(source: Path, place: Path) -> None:
    if source.is_dir():
        raise CommandError(f"{source} is a directory: name a backup in it.")
    if not source.exists():
        raise CommandError(f"There is no file {source}: name a backup.")
    if not source.is_file():
        raise CommandError(f"{source} is not a file: name a backup.")
    if place.exists() and place.samefile(source):
        raise CommandError(f"{source} is the database itself: name a backup.")
    try:
        with source.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise CommandError(f"{source} cannot be read: {reason_of(error)}.") from None
    if not start:
        raise CommandError(f"{source} is empty: name a backup.")
    if start != MAGIC:
        raise CommandError(f"{source} is not a backup: it is not a SQLite database.")


def _claim(place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        claimed = claim_database(place)
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be made or opened: {reason_of(error)}.") from None
    if not claimed:
        raise CommandError(f"A control plane runs on {place}: stop it, restore, and start it again.")


def _finish(copy: Path, place: Path) -> None:
    """Give the copy its owner, and see it on the disk."""
    file = os.open(copy, os.O_RDWR)
    try:
        hand_over(file, place)
        os.fsync(file)
    finally:
        os.close(file)


def _swap(copy: Path, place: Path) -> Path | None:
    """Put the copy in its place; return under which name the database is kept that was there, if one was."""
    try:
        kept = _keep(place) if place.exists() else None
        copy.replace(place)
        for left_over in ("-wal", "-shm"):
            place.with_name(f"{place.name}{left_over}").unlink(missing_ok=True)
        sync_directory(place.parent)
    except OSError as error:
        raise CommandError(f"{place} cannot be replaced: {reason_of(error)}.") from None
    return kept


def _keep(place: Path) -> Path:
    """Give the database that is there a second name, which stays when it has lost its first one."""
    kept = place.with_name(f"{place.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    wal = place.with_name(f"{place.name}-wal")
    try:
        settle(place)
    except sqlite3.OperationalError as error:
        raise CommandError(f"{place} cannot be set aside: {reason_of(error)}.") from None
    except sqlite3.DatabaseError:
        # Too damaged to be opened, which may be why something else is restored: kept as it is, with all its parts.
        os.link(place, kept)
        if wal.exists():
            wal.rename(kept.with_name(f"{kept.name}-wal"))
    else:
        os.link(place, kept)
    return kept


def _tell(source: Path, database: Path, kept: Path | None, verified: Verified) -> None:
    contents = verified.contents
    newest = f", the newest of {contents.newest_at[:16]} UTC" if contents.newest_at else ""
    say(f"Restored {source} to {database}: {size_of(database)}, {contents.deployments} deployments{newest}.")
    if kept is not None:
        say(f"The database that was there is kept as {kept}.")
    if verified.is_older:
        say(f"Its schema, revision {verified.revision}, is older and is brought up to date at the next start.")
    if contents.waiting or contents.in_flight:
        say(
            f"As when the backup was made, {contents.waiting} jobs wait to be sent, and {contents.in_flight} are in "
            "flight: what waits is sent when its agent connects."
        )
    if not secrets_path(database).exists():
        say(
            f"There is no {secrets_path(database)}: unless AGENT_SECRET_TOKEN and API_TOKEN are set, the next start "
            "makes new ones, which every agent and caller must be given."
        )
    say("Start the control plane now.")
