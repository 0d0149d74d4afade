"""Whether a copy is a database that a control plane can run on: asked of every backup and before every restore."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from control_plane.commands.refusals import CommandError, reason_of
from control_plane.store import inspection
from control_plane.store.copying import open_to_read
from control_plane.store.inspection import Contents


@dataclass(frozen=True, slots=True)
class Verified:
    """A sound database."""

    revision: str
    is_older: bool
    contents: Contents


def verify(copy: Path, original: Path) -> Verified:
    """Return what is in a copy at rest, after checking all of it. CommandError names the `original`'s fault."""
    try:
        with contextlib.closing(open_to_read(copy, at_rest=True)) as db:
            return _verify(db, original)
    except sqlite3.Error as error:
        raise CommandError(f"{original} cannot be used: {reason_of(error)}.") from None


def _verify(db: sqlite3.Connection, original: Path) -> Verified:
    if damage := inspection.find_damage(db):
        raise CommandError(f"{original} is damaged: {damage[0]}.")
    revision = inspection.read_revision(db)
    if revision is None:
        raise CommandError(f"{original} is a SQLite database, but not one of a control plane.")
    if inspection.is_newer(revision):
        raise CommandError(
            f"{original} was written by a newer control plane (schema revision {revision}): install that version first."
        )
    if broken := inspection.find_broken_references(db):
        raise CommandError(f"{original} is not whole: {broken[0]}.")
    return Verified(revision, inspection.is_older(revision), inspection.read_contents(db))
