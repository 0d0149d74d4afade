"""`check [FILE]`: looks the database over, or a backup, and says what is wrong with it; changes nothing."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from control_plane.commands.backup import check_is_there
from control_plane.commands.console import ProgressLine, say, size_of
from control_plane.commands.refusals import CommandError, reason_of
from control_plane.store import inspection
from control_plane.store.chain import Chain, verify_chain
from control_plane.store.copying import open_to_read
from control_plane.store.inspection import Contradiction


def check(database: Path, backup: Path | None) -> bool:
    """Report on `database`, or on the file `backup` where one is named; returns whether all is well.

    CommandError when it cannot be opened.
    """
    path = backup or database
    if backup is None:
        check_is_there(database)
    elif not backup.is_file() or not backup.stat().st_size:
        raise CommandError(f"{backup} is not a file with something in it: name a backup.")
    sections: list[tuple[str, str, list[str]]] = []
    try:
        with ProgressLine() as progress, contextlib.closing(open_to_read(path, at_rest=backup is not None)) as db:
            progress.show("Checking")
            sections = list(_look_over(db))
            contents = None if any(faults for _, _, faults in sections[:3]) else inspection.read_contents(db)
    except sqlite3.Error as error:
        raise CommandError(f"{path} cannot be checked: {reason_of(error)}.") from None
    holds = f", {_counted(contents.deployments, 'deployment')}, {_counted(contents.jobs, 'job')}" if contents else ""
    say(f"{path}: {size_of(path)}{holds}")
    for name, good, faults in sections:
        say(f"  {name:<11} {good if not faults else 'NOT WELL'}")
        for fault in faults:
            say(f"    - {fault}")
    return not any(faults for _, _, faults in sections)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _look_over(db: sqlite3.Connection) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each part of the report: its name, what it says when all is well, and its faults."""
    damage = inspection.find_damage(db)
    yield "integrity", "ok", [f"{fault}: restore a backup" for fault in damage]
    if damage:
        return
    revision = inspection.read_revision(db)
    yield from _schema(revision)
    if revision is None or inspection.is_newer(revision):
        return
    yield "references", "ok", [f"{fault}: restore a backup" for fault in inspection.find_broken_references(db)]
    yield "rows", "ok", [_told(found) for found in inspection.find_contradictions(db)]
    if chain := verify_chain(db):
        yield "audit", f"ok, {chain.last_id} entries{_last(chain)}", [_broken(chain)] if chain.fault else []


def _last(chain: Chain) -> str:
    return f", the last with the hash {chain.last_hash}" if chain.last_id else ""


def _broken(chain: Chain) -> str:
    return f"{chain.fault}: what the audit says from there on may be forged; compare it with an export or a backup"


def _told(found: Contradiction) -> str:
    examples = ", ".join((*found.examples, *(["…"] if found.count > len(found.examples) else [])))
    return f"{found.count} {found.what} ({examples}): {found.meaning}"


def _schema(revision: str | None) -> Iterator[tuple[str, str, list[str]]]:
    if revision is None:
        yield "schema", "", ["this is not a control plane's database"]
    elif inspection.is_newer(revision):
        yield "schema", "", [f"revision {revision} is of a newer control plane: install that version"]
    elif inspection.is_older(revision):
        yield "schema", f"{revision}, brought up to date at the next start", []
    else:
        yield "schema", f"{revision}, up to date", []
