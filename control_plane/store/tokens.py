"""Tokens' rows: what is known of each but the token itself, of which only the SHA-256 is here.

`operations.token_book` reads what has changed by its revision, the operations on tokens write. Invariant: each
change of a row but of its last use raises the revision, in the same transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, or_, select, update
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.access import Reach
from control_plane.core.errors import TokenNotFoundError
from control_plane.core.tokens import TokenKind
from control_plane.store.bulk import Bulk
from control_plane.store.models import Token
from control_plane.store.reaching import within
from control_plane.store.tables import agent_table, token_table


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that is to be known from now on. `digest`: its SHA-256 in hexadecimal digits."""

    organization_id: int
    kind: TokenKind
    name: str
    digest: str = field(repr=False)
    at: datetime
    role: str | None = None
    agent_id: int | None = None
    enrollment_id: int | None = None
    projects: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    uses_left: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new digest for a token that keeps the rest; the old one is good until `old_until`."""

    reach: Reach
    token_id: int
    digest: str = field(repr=False)
    old_until: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of a token."""

    reach: Reach
    token_id: int
    at: datetime


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token as those need it who check what is presented."""

    id: int
    organization_id: int
    kind: TokenKind
    name: str
    role: str | None
    agent_id: int | None
    hostname: str | None
    digest: bytes = field(repr=False)
    previous_digest: bytes | None = field(repr=False)
    previous_until: datetime | None
    projects: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked: bool
    revision: int


_token = token_table.c
USE_NOTED = timedelta(minutes=1)
"""The use of a token is written at most so often."""
_TOUCH = Bulk(
    update(token_table)
    .where(
        _token.id == bindparam("token"),
        or_(_token.last_used_at.is_(None), _token.last_used_at < bindparam("at")),
    )
    .values(last_used_at=bindparam("at"))
)


def add_tokens(db: Connection, items: Sequence[NewToken]) -> list[int | Exception]:
    """Store tokens and return their ids."""
    return [insert_token(db, item) for item in items]


def insert_token(db: Connection, item: NewToken) -> int:
    """Store one token, within another change; returns its id."""
    values: dict[str, Any] = {
        "organization_id": item.organization_id,
        "kind": item.kind.value,
        "name": item.name,
        "digest": item.digest,
        "created_at": item.at,
        "role": item.role,
        "agent_id": item.agent_id,
        "enrollment_id": item.enrollment_id,
        "projects": list(item.projects) or None,
        "labels": dict(item.labels) or None,
        "uses_left": item.uses_left,
        "expires_at": item.expires_at,
        "revision": next_revision(db),
    }
    return int(db.execute(insert(token_table).values(values)).inserted_primary_key[0])  # type: ignore[index]


def next_revision(db: Connection) -> int:
    """Return the revision of a change that is made now, in the open transaction."""
    return int(db.execute(select(func.coalesce(func.max(_token.revision), 0) + 1)).scalar_one())


def rotate_tokens(db: Connection, items: Sequence[Rotation]) -> list[Exception | None]:
    """Give tokens new digests. TokenNotFoundError for one that is not there, or not good any more."""
    return [_rotate(db, item) for item in items]


def _rotate(db: Connection, item: Rotation) -> Exception | None:
    alive = [*_named(item.reach, item.token_id), _token.revoked_at.is_(None)]
    alive.append(or_(_token.expires_at.is_(None), _token.expires_at > item.at))
    changed = db.execute(
        update(token_table)
        .where(*alive)
        .values(
            digest=item.digest,
            previous_digest=_token.digest,
            previous_until=item.old_until,
            revision=next_revision(db),
        )
    )
    return None if changed.rowcount else token_not_found(item.token_id)


def revoke_tokens(db: Connection, items: Sequence[Revocation]) -> list[Exception | None]:
    """End tokens at once; one that is revoked stays so. TokenNotFoundError for one that is not there."""
    return [_revoke(db, item) for item in items]


def _revoke(db: Connection, item: Revocation) -> Exception | None:
    found = db.execute(select(_token.id).where(*_named(item.reach, item.token_id))).first()
    if found is None:
        return token_not_found(item.token_id)
    revoke_where(db, [_token.id == item.token_id], item.at)
    return None


def revoke_where(db: Connection, conditions: Sequence[Any], at: datetime) -> None:
    """End the tokens of which these conditions are true, within another change."""
    ids = db.execute(select(_token.id).where(*conditions, _token.revoked_at.is_(None))).scalars().all()
    for token_id in ids:
        change = update(token_table).where(_token.id == token_id)
        db.execute(change.values(revoked_at=at, revision=next_revision(db)))


def touch_tokens(db: Connection, items: Sequence[dict[int, datetime]]) -> list[Exception | None]:
    """Note when tokens were last used, by id."""
    rows = [{"token": token_id, "at": at} for used in items for token_id, at in used.items()]
    if rows:
        _TOUCH.run(db, rows)
    return [None] * len(items)


def list_changed_tokens(db: Session, after_revision: int, limit: int) -> list[KnownToken]:
    """Return up to `limit` tokens of any kind that changed after a revision, in the order of their changes."""
    query = (
        select(token_table, agent_table.c.hostname)
        .outerjoin(agent_table, agent_table.c.id == _token.agent_id)
        .where(_token.revision > after_revision)
        .order_by(_token.revision)
        .limit(limit)
    )
    return [_known(row) for row in db.execute(query)]


def _known(row: Any) -> KnownToken:
    return KnownToken(
        id=row.id,
        organization_id=row.organization_id,
        kind=TokenKind(row.kind),
        name=row.name,
        role=row.role,
        agent_id=row.agent_id,
        hostname=row.hostname,
        digest=bytes.fromhex(row.digest),
        previous_digest=bytes.fromhex(row.previous_digest) if row.previous_digest else None,
        previous_until=row.previous_until,
        projects=tuple(row.projects or ()),
        labels=tuple((row.labels or {}).items()),
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked=row.revoked_at is not None,
        revision=row.revision,
    )


def list_tokens(db: Session, reach: Reach, *, before_id: int | None, limit: int) -> Sequence[Token]:
    """Return up to `limit` callers' tokens and enrolments that were not revoked, newest first."""
    kinds: Iterable[str] = (TokenKind.API.value, TokenKind.ENROLLMENT.value)
    query = select_rows(Token).where(
        _token.organization_id == reach.organization_id, _token.kind.in_(kinds), _token.revoked_at.is_(None)
    )
    if before_id is not None:
        query = query.where(_token.id < before_id)
    return db.exec(query.order_by(col(Token.id).desc()).limit(limit)).all()


def get_token(db: Session, reach: Reach, token_id: int) -> Token:
    """Return a caller's token or an enrolment. Raises TokenNotFoundError."""
    found = db.exec(select_rows(Token).where(*_named(reach, token_id))).first()
    if found is None:
        raise token_not_found(token_id)
    return found


def get_owner(db: Session, token_id: int) -> int:
    """Return the organisation of a token, for root, which manages those of all. Raises TokenNotFoundError."""
    found = db.execute(select(_token.organization_id).where(_token.id == token_id)).scalar()
    if found is None:
        raise token_not_found(token_id)
    return int(found)


def _named(reach: Reach, token_id: int) -> list[Any]:
    # A token's own labels and projects limit what it reaches, not who may manage it.
    organization = Reach(reach.organization_id)
    return [*within(token_table, organization), _token.id == token_id, _token.kind != TokenKind.AGENT.value]


def token_not_found(token_id: int) -> TokenNotFoundError:
    """Return the error for a token that does not exist for whoever asks."""
    return TokenNotFoundError(f"There is no token with the id {token_id}; GET /tokens lists them.")
