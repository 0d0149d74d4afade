"""Errands: what a command on the host asks of the control plane that runs there, in files beside the database.

Whoever may write there may write the database itself, so that no token is asked for; and the command must not write
the database, for with two connections that write SQLite can damage it. The command leaves a request, the tokens loop
takes it and leaves an answer. Invariant: neither file ever holds a token, only its SHA-256.
"""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from control_plane.core.access import Role
from control_plane.core.audit import AuditEntry
from control_plane.core.errors import OrganizationNotFoundError
from control_plane.core.tokens import TokenKind
from control_plane.store.audit import record_audit
from control_plane.store.tables import organization_table, token_table
from control_plane.store.tokens import NewToken, insert_token

MAX_FILE_BYTES = 10_000
AUDITED_AS = "run.py token create"
"""Who has made the token, in the audit: whoever may write beside the database has no name here."""
_REQUEST, _ANSWER = ".request", ".answer"


@dataclass(frozen=True, slots=True)
class TokenErrand:
    """A token of the API that somebody on the host wants. `digest`: its SHA-256 in hexadecimal digits."""

    name: str
    role: str
    organization: str
    digest: str = field(repr=False)


def errands_directory(database: Path) -> Path:
    """Return where the requests for the control plane on this database are left."""
    real = database.resolve()
    return real.with_name(f"{real.name}.errands")


def leave_request(directory: Path, key: str, errand: TokenErrand, made: Callable[[int], object]) -> None:
    """Leave a request, whole from the moment that it has its name; its open file is given to `made`. Raises OSError."""
    _put(directory / f"{key}{_REQUEST}", asdict(errand), made)


def take_back(directory: Path, key: str) -> bool:
    """Remove a request; False if it was taken meanwhile."""
    try:
        (directory / f"{key}{_REQUEST}").unlink()
    except FileNotFoundError:
        return False
    return True


def find_requests(directory: Path) -> list[tuple[str, TokenErrand | None]]:
    """Return the requests with their keys, None for one that cannot be read; nothing where there is no directory."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(_REQUEST))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(name.removesuffix(_REQUEST), _read_request(directory / name)) for name in names]


def answer(directory: Path, key: str, error: str | None) -> None:
    """Leave what became of a request, and take it away. `error`: a sentence, None when it was carried out."""
    _put(directory / f"{key}{_ANSWER}", {"error": error})
    take_back(directory, key)


def take_answer(directory: Path, key: str) -> tuple[bool, str | None]:
    """Return whether an answer is there, and its error; it is taken away."""
    path = directory / f"{key}{_ANSWER}"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False, None
    path.unlink()
    return True, content["error"]


def carry_out_errands(db: Connection, items: Sequence[TokenErrand]) -> list[int | Exception]:
    """Store the wanted tokens and return their ids; one that is stored already stays. OrganizationNotFoundError."""
    return [_carry_out(db, item) for item in items]


def _carry_out(db: Connection, item: TokenErrand) -> int | Exception:
    stored = db.execute(select(token_table.c.id).where(token_table.c.digest == item.digest)).scalar()
    if stored is not None:
        return int(stored)
    organization = organization_table.c
    found = db.execute(select(organization.id).where(organization.name == item.organization)).scalar()
    if found is None:
        return OrganizationNotFoundError(f"There is no organisation named '{item.organization}'.")
    now = datetime.now(UTC)
    new = NewToken(found, TokenKind.API, item.name, item.digest, now, role=Role(item.role).value)
    token_id = insert_token(db, new)
    entry = AuditEntry(found, None, AUDITED_AS, "", "", "", "create_token")
    entry.concern(f"token {token_id}, {item.role}")
    record_audit(db, [(entry, token_id)])
    return token_id


def _put(path: Path, content: dict[str, Any], made: Callable[[int], object] = lambda _file: None) -> None:
    unfinished = path.with_suffix(".unfinished")
    with contextlib.suppress(FileNotFoundError):
        unfinished.unlink()
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        made(file.fileno())
        json.dump(content, file)
    unfinished.rename(path)


def _read_request(path: Path) -> TokenErrand | None:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_FILE_BYTES))
        errand = TokenErrand(**{name: str(content[name]) for name in ("name", "role", "organization", "digest")})
        Role(errand.role)
        bytes.fromhex(errand.digest)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return errand
