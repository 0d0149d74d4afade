"""The audit's rows: who did what and what came of it, each chained by its hash to its organisation's row before.

The writer writes them in the transaction of the very changes that they tell of. Invariant: an entry gets one row,
the ids have no gap, and no row is changed or removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, insert, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.access import Reach
from control_plane.core.audit import CHAIN_START, DONE, HASHED, REPEATED, AuditEntry, hash_of
from control_plane.core.errors import (
    ControlPlaneError,
    JobAlreadySentError,
    JobFinishedError,
    JobNotFoundError,
)
from control_plane.store.agents import Arrived
from control_plane.store.answers import Outcome, Recorded
from control_plane.store.bulk import Bulk, Lookup
from control_plane.store.database import last_id_given
from control_plane.store.disk import new_work
from control_plane.store.history import first_id_since, unindexed
from control_plane.store.idempotency import AnsweredBeforeError
from control_plane.store.models_audit import AUDIT_HAS_TOKEN, AUDIT_IS_NO_DEPLOY, AUDIT_IS_NOT_DONE, Audit
from control_plane.store.tables import audit_table

_audit = audit_table.c
_INSERT = Bulk(insert(audit_table))
_LAST = Lookup(
    select(
        last_id_given("audit"),
        select(_audit.hash)
        .where(_audit.organization_id == bindparam("organization"))
        .order_by(_audit.id.desc())
        .limit(1)
        .scalar_subquery(),
    )
)
_REFUSALS = {
    Outcome.LATE: JobFinishedError.code,
    Outcome.HELD_BACK: JobAlreadySentError.code,
    Outcome.UNKNOWN: JobNotFoundError.code,
}
"""What a cancellation came to that moved no job."""


def record_audit(db: Connection, told: Sequence[tuple[AuditEntry, Any]]) -> None:
    """Write a row for each entry, in their order, as of now. With each comes what its change returned for it."""
    at = datetime.now(UTC)
    moment = moment_text(at)
    hashes: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    last_id: int = 0
    for entry, result in told:
        organization_id = entry.organization_id
        if organization_id not in hashes:
            # Asked in each transaction: what was remembered of another may have been rolled back.
            given, previous = _LAST.first(db, organization=organization_id)
            last_id = last_id or given or 0
            hashes[organization_id] = previous or CHAIN_START
        last_id += 1
        row = _row(last_id, moment, entry, result, hashes[organization_id])
        row["at"], hashes[organization_id] = at, row["hash"]
        rows.append(row)
    _INSERT.run(db, rows)


def _row(number: int, moment: str, entry: AuditEntry, result: Any, previous: str) -> dict[str, Any]:
    outcome, job_id, result_id = _what_came_of(entry, result)
    values = (
        number,
        entry.organization_id,
        moment,
        entry.token_id,
        entry.actor,
        entry.role,
        entry.address,
        entry.request_id,
        entry.action,
        entry.object,
        outcome,
        job_id,
        result_id,
        previous,
    )
    row: dict[str, Any] = dict(zip(HASHED, values, strict=True))
    row["hash"] = hash_of(values)
    return row


def moment_text(at: datetime) -> str:
    """Return a time as it is hashed and exported: `2026-11-23T20:20:09.616749Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _what_came_of(entry: AuditEntry, result: Any) -> tuple[str, str | None, int | None]:
    """Return outcome, job and id of what a change's result says of an entry."""
    outcome, job_id, result_id = DONE, entry.job_id, None
    if entry.outcome is not None:
        outcome = entry.outcome
    elif isinstance(result, int):
        result_id = result
    elif isinstance(result, AnsweredBeforeError):
        outcome, job_id = REPEATED, result.job_id
    elif isinstance(result, Exception):
        outcome, job_id = _code_of(result), None
    elif isinstance(result, Recorded) and result.outcome in _REFUSALS:
        outcome, job_id = _REFUSALS[result.outcome], None
    elif isinstance(result, str) and result != job_id:
        outcome, job_id = REPEATED, result  # a question to an agent that was asked for before, and is shared
    elif isinstance(result, Arrived):
        result_id = result.agent_id
    return outcome, job_id, result_id


def _code_of(error: Exception) -> str:
    """Return the problem code of an error; one that is none of ours is told like all that we did not expect."""
    return error.code if isinstance(error, ControlPlaneError) else ControlPlaneError.code


@new_work
def note_entries(_db: Connection, items: Sequence[None]) -> list[Exception | None]:
    """Change nothing, for the sake of the entries that are written with it: of requests that were refused before.

    On a full disk they are not taken: what room is kept there is for work under way.
    """
    return [None] * len(items)


@dataclass(frozen=True, slots=True)
class WantedAudit:
    """What a page is to hold: at most `limit` rows of an organisation, newest first, older than `before_id`.

    One filter costs the same however long the history is; with several, what the first leads to is looked through.
    """

    reach: Reach
    limit: int
    outcome: str | None = None
    token_id: int | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_id: int | None = None


def list_audit(db: Session, wanted: WantedAudit) -> Sequence[Audit]:
    """Return a page of the audit, newest first."""
    query = select_rows(Audit).where(*_filters(wanted), *_period(db, wanted))
    if wanted.before_id is not None:
        query = query.where(_audit.id < wanted.before_id)
    return db.exec(query.order_by(col(Audit.id).desc()).limit(wanted.limit)).all()


def export_audit(db: Session, wanted: WantedAudit, after_id: int) -> Sequence[Audit]:
    """Return up to `wanted.limit` rows with ids above `after_id`, oldest first."""
    query = select_rows(Audit).where(*_filters(wanted), *_period(db, wanted), _audit.id > after_id)
    return db.exec(query.order_by(col(Audit.id)).limit(wanted.limit)).all()


def _filters(wanted: WantedAudit) -> list[ColumnElement[bool]]:
    """Return the conditions, of which one leads to an index: what is sought most rarely found, by it first."""
    outcome: ColumnElement[Any] = _audit.outcome
    token: ColumnElement[Any] = _audit.token_id
    action: ColumnElement[Any] = _audit.action
    organization: ColumnElement[Any] = _audit.organization_id
    conditions: list[Any] = []
    if wanted.outcome not in {None, DONE}:
        conditions.append(AUDIT_IS_NOT_DONE)
        token, action = unindexed(token), unindexed(action)
    elif wanted.token_id is not None:
        conditions.append(AUDIT_HAS_TOKEN)
        organization, action = unindexed(organization), unindexed(action)
    elif wanted.action not in {None, "deploy"}:
        conditions.append(AUDIT_IS_NO_DEPLOY)
    conditions.append(organization == wanted.reach.organization_id)
    sought = ((outcome, wanted.outcome), (token, wanted.token_id), (action, wanted.action))
    return conditions + [column == value for column, value in sought if value is not None]


def _period(db: Session, wanted: WantedAudit) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        bounds.append(_audit.id >= first_id_since(db, audit_table, wanted.since))
    if wanted.until is not None:
        bounds.append(_audit.id < first_id_since(db, audit_table, wanted.until))
    return bounds
