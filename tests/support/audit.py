"""Entries of the audit as tests make and read them."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from control_plane.core.audit import AuditEntry
from control_plane.store.chain import Chain, verify_chain

ROWS = "SELECT action, object, outcome, job_id, result_id FROM audit ORDER BY id"


def entry(action: str = "deploy", about: str = "project web", **fields: Any) -> AuditEntry:
    made = AuditEntry(fields.pop("organization_id", 1), None, "API_TOKEN", "root", "192.0.2.1", "r-1", action)
    made.concern(about)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def chain_of(database: Path) -> Chain:
    """Return what `check` finds of the audit in a database."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = verify_chain(connection)
    assert found is not None
    return found
