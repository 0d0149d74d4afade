"""Whether the audit's rows are as they were written: each hash, each link, and no row missing. For `check`.

In plain SQL, for it looks at databases that no control plane has open, of older schemas too.
"""

import sqlite3
from dataclasses import dataclass

from control_plane.core.audit import CHAIN_START, HASHED, hash_of

_ROWS = f"SELECT {', '.join(HASHED)}, hash FROM audit ORDER BY id"  # noqa: S608 - names of ours
_AT, _ORGANIZATION, _PREVIOUS = HASHED.index("at"), HASHED.index("organization_id"), HASHED.index("previous_hash")


@dataclass(frozen=True, slots=True)
class Chain:
    """What was found: the id and hash of the last row that fits, and what is wrong with the first that does not fit."""

    last_id: int
    last_hash: str
    fault: str | None = None


def verify_chain(db: sqlite3.Connection) -> Chain | None:
    """Go through the audit to its end or its first fault; None for a schema that has none.

    What cannot be seen: that somebody who may write the database has made all hashes anew from some row on.
    """
    if not db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'audit'").fetchone():
        return None
    # Asked first, for a control plane may write meanwhile.
    [(given,)] = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'audit'").fetchall()
    last: dict[int, str] = {}
    last_id, last_hash = 0, CHAIN_START
    for row in db.execute(_ROWS):
        fault = _fault(row, last_id, last.get(row[_ORGANIZATION], CHAIN_START))
        if fault is not None:
            return Chain(last_id, last_hash, fault)
        last_id, last_hash = row[0], row[-1]
        last[row[_ORGANIZATION]] = last_hash
    if last_id < (given or 0):
        return Chain(last_id, last_hash, f"the end is missing: {given} rows were written, {last_id} are there")
    return Chain(last_id, last_hash)


def _fault(row: tuple[object, ...], before: int, previous_hash: str) -> str | None:
    """Return what is wrong with a row that comes after the one with the id `before`."""
    number = row[0]
    if number != before + 1:
        return f"row {before + 1} is missing"
    values = list(row[:-1])
    # As the store has times, to how they are hashed.
    values[_AT] = str(row[_AT]).replace(" ", "T").replace("+00:00", "Z")
    if row[_PREVIOUS] != previous_hash:
        return f"row {number} does not follow the row of its organisation that is before it"
    if row[-1] != hash_of(values):
        return f"row {number} is not what its hash says"
    return None
