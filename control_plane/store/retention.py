"""What is old: finding it page by page along the ids, and removing it a little at a time. For operations.retaining.

A page is only a proposal, read beside the writer. Each removal judges its rows again inside the writer's own
transaction, so that nothing goes which somebody began to need meanwhile; and it stops after HOLD_SECONDS, for users
wait for the same writer.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
)
from sqlmodel import Session

from control_plane.core.events import EventKind
from control_plane.core.protocol import CommandType
from control_plane.core.states import DEPLOYMENT_MOVES, TERMINAL_JOB_STATUSES
from control_plane.store.tables import (
    compose_file_table,
    deployment_table,
    event_table,
    idempotency_table,
    job_log_table,
    job_table,
    placement_table,
)

PAGE = 5000
"""Rows looked at in one read; those that must stay never leave SQLite."""
HOLD_SECONDS = 0.01
"""How long a removal may take before its commit. A single deployment, with a log of 1 MiB, may take as long."""

Removal = Callable[[Connection, Sequence[Any], datetime], Counter[str]]


@dataclass(frozen=True, slots=True)
class Page:
    """Keys of rows that may go, oldest first, and where to look on; None: there is nothing old behind them."""

    keys: Sequence[Any]
    next_after: Any


@dataclass(frozen=True, slots=True)
class Sweep:
    """Rows to be judged again, and removed if they are over since before `before`."""

    keys: Sequence[Any]
    before: datetime


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of a sweep's keys, from the first on, were dealt with, and how many rows of each table went."""

    dealt_with: int
    removed: Counter[str]
    held_seconds: float


_job = job_table.c
_deployment = deployment_table.c
_place = placement_table.c
_BEFORE = bindparam("before", type_=_job.created_at.type)
_KEYS: BindParameter[Any] = bindparam("keys", expanding=True)
_DEPLOYS = CommandType.DEPLOY_COMPOSE.value
_JOB_IS_OVER: ColumnElement[bool] = and_(
    # A deploy's job stays as long as its deployment.
    _job.command_type != _DEPLOYS,
    _job.status.in_([status.value for status in TERMINAL_JOB_STATUSES]),
)
_DEPLOYMENT_IS_OVER: ColumnElement[bool] = and_(
    _deployment.status.in_([status.value for status, moves in DEPLOYMENT_MOVES.items() if not moves]),
    _deployment.updated_at < _BEFORE,
    ~exists(
        select(_place.project_name).where(
            _place.organization_id == _deployment.organization_id,
            _place.project_name == _deployment.project_name,
            _place.agent_id == _deployment.agent_id,
            or_(_place.latest_deployment_id == _deployment.id, _place.current_deployment_id == _deployment.id),
        )
    ),
    # Other jobs go one by one before it, however many there are.
    ~exists(
        select(_job.id).where(
            _job.deployment_id == _deployment.id,
            not_(and_(_job.command_type == _DEPLOYS, func.coalesce(_job.finished_at < _BEFORE, False))),
        )
    ),
)

_event = event_table.c
_record = idempotency_table.c
_later = event_table.alias("later").c
_EVENT_IS_OLD: ColumnElement[bool] = and_(
    _event.at < _BEFORE,
    # Each start is compared with the one before it, however long that ran.
    or_(
        _event.kind.not_in([EventKind.CONTROL_PLANE_STARTED.value, EventKind.CONTROL_PLANE_STOPPED.value]),
        exists(
            select(_later.id).where(
                _later.organization_id == _event.organization_id, _later.kind == _event.kind, _later.id > _event.id
            )
        ),
    ),
)
_AFTER: BindParameter[Any] = bindparam("after")
_LAST: BindParameter[Any] = bindparam("last")
_JOB_PAGE_END = select(_job.id).where(_job.id > _AFTER, _job.id < _LAST).order_by(_job.id).offset(PAGE - 1).limit(1)
_JOBS = select(_job.id).where(_job.id > _AFTER, _job.id <= _LAST, _JOB_IS_OVER).order_by(_job.id)
_RECORDS = select(_record.key).where(_record.created_at < _BEFORE).order_by(_record.created_at).limit(PAGE)


def list_old_jobs(db: Session, before: datetime, after: str | None) -> Page:
    """Return jobs that were created before `before` and are over, deploys excepted, with ids above `after`."""
    bounds = {"after": after or "", "last": _first_job_id(before)}
    end = db.execute(_JOB_PAGE_END, bounds).scalar()
    return Page(db.execute(_JOBS, {**bounds, "last": end or bounds["last"]}).scalars().all(), end)


def list_old_deployments(db: Session, before: datetime, after: int | None) -> Page:
    """Return deployments with ids above `after` that are over since before `before`, and that nothing refers to.

    What refers to one: its project's place, as the latest or the current one; jobs other than its own deploy.
    """
    return _DEPLOYMENTS.page(db, before, after or 0)


def list_old_events(db: Session, before: datetime, after: int | None) -> Page:
    """Return events with ids above `after` that are older than `before`, the last start and the last stop excepted."""
    return _EVENTS.page(db, before, after or 0)


def list_old_idempotency_records(db: Session, before: datetime, _after: str | None) -> Page:
    """Return keys that were used before `before`. There is no `after`: the next page follows when these are gone."""
    keys = db.execute(_RECORDS, {"before": before}).scalars().all()
    return Page(keys, keys[-1] if len(keys) == PAGE else None)


class _Numbered:
    """Pages of a table whose ids are numbers in the order of creation."""

    def __init__(self, key: Any, created_at: Any, may_go: ColumnElement[bool]) -> None:
        self._end = select(key).where(key > _AFTER).order_by(key).offset(PAGE - 1).limit(1)
        here = (key > _AFTER, key <= _LAST)
        self._may_go = select(key).where(*here, may_go).order_by(key)
        self._any_old = select(key).where(*here, created_at < _BEFORE).order_by(key).limit(1)

    def page(self, db: Session, before: datetime, after: int) -> Page:
        end = db.execute(self._end, {"after": after}).scalar()
        bounds = {"after": after, "last": _NO_END if end is None else end, "before": before}
        keys = db.execute(self._may_go, bounds).scalars().all()
        # Not up to the first young row: the clock may have been wrong for a while, and old ones are behind that.
        goes_on = end is not None and db.execute(self._any_old, bounds).scalar() is not None
        return Page(keys, end if goes_on else None)


_NO_END = 2**63 - 1
_DEPLOYMENTS = _Numbered(_deployment.id, _deployment.created_at, _DEPLOYMENT_IS_OVER)
_EVENTS = _Numbered(_event.id, _event.at, _EVENT_IS_OLD)


def _first_job_id(at: datetime) -> str:
    """Return what no id of a job created before `at` reaches: UUIDv7 begins with the time in ms (RFC 9562, 5.7)."""
    digits = f"{int(at.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


_OLD_JOBS = select(_job.id).where(_job.id.in_(_KEYS), _JOB_IS_OVER, _job.finished_at < _BEFORE)
_OLD_DEPLOYMENTS = select(_deployment.id, _deployment.compose_file_hash).where(
    _deployment.id.in_(_KEYS), _DEPLOYMENT_IS_OVER
)
_JOBS_OF_DEPLOYMENTS = select(_job.id).where(_job.deployment_id.in_(_KEYS))
_DROP_PIECES = delete(job_log_table).where(job_log_table.c.job_id.in_(_KEYS))
_DROP_JOBS = delete(job_table).where(_job.id.in_(_KEYS))
_DROP_DEPLOYMENTS = delete(deployment_table).where(_deployment.id.in_(_KEYS))
_DROP_FILES = delete(compose_file_table).where(
    compose_file_table.c.sha256.in_(_KEYS),
    ~exists(select(_deployment.id).where(_deployment.compose_file_hash == compose_file_table.c.sha256)),
)
_DROP_EVENTS = delete(event_table).where(_event.id.in_(_KEYS), _EVENT_IS_OLD)
_DROP_RECORDS = delete(idempotency_table).where(_record.key.in_(_KEYS), _record.created_at < _BEFORE)


def remove_jobs(db: Connection, sweeps: Sequence[Sweep]) -> list[Swept | Exception]:
    """Remove jobs with the pieces of their logs, as far as time allows."""
    return [_sweep(db, sweep, _remove_jobs) for sweep in sweeps]


def remove_deployments(db: Connection, sweeps: Sequence[Sweep]) -> list[Swept | Exception]:
    """Remove deployments with the jobs that deployed them, and Compose files that no deployment has any more."""
    return [_sweep(db, sweep, _remove_deployments) for sweep in sweeps]


def remove_events(db: Connection, sweeps: Sequence[Sweep]) -> list[Swept | Exception]:
    """Remove events, as far as time allows."""
    return [_sweep(db, sweep, _remove_events) for sweep in sweeps]


def remove_idempotency_records(db: Connection, sweeps: Sequence[Sweep]) -> list[Swept | Exception]:
    """Remove records of keys, as far as time allows; one that was used again meanwhile stays."""
    return [_sweep(db, sweep, _remove_records) for sweep in sweeps]


def _sweep(db: Connection, sweep: Sweep, remove: Removal) -> Swept:
    began = time.monotonic()
    removed: Counter[str] = Counter()
    dealt_with, at_once, took, elapsed = 0, 1, 0.0, 0.0
    # Twice as many each time, as long as they will fit: rows differ in size by a factor of thousands.
    while dealt_with < len(sweep.keys) and elapsed + 2 * took <= HOLD_SECONDS:
        some = sweep.keys[dealt_with : dealt_with + at_once]
        removed.update(remove(db, some, sweep.before))
        dealt_with += len(some)
        at_once *= 2
        took = time.monotonic() - began - elapsed
        elapsed += took
    return Swept(dealt_with, removed, elapsed)


def _remove_jobs(db: Connection, keys: Sequence[str], before: datetime) -> Counter[str]:
    old = db.execute(_OLD_JOBS, {"keys": keys, "before": before}).scalars().all()
    _drop_jobs(db, old)
    return Counter(jobs=len(old))


def _remove_deployments(db: Connection, keys: Sequence[int], before: datetime) -> Counter[str]:
    old = db.execute(_OLD_DEPLOYMENTS, {"keys": keys, "before": before}).all()
    if not old:
        return Counter()
    ids, hashes = [row[0] for row in old], {row[1] for row in old}
    jobs = db.execute(_JOBS_OF_DEPLOYMENTS, {"keys": ids}).scalars().all()
    _drop_jobs(db, jobs)
    db.execute(_DROP_DEPLOYMENTS, {"keys": ids})
    files = db.execute(_DROP_FILES, {"keys": list(hashes)}).rowcount
    return Counter(jobs=len(jobs), deployments=len(ids), compose_files=files)


def _drop_jobs(db: Connection, ids: Sequence[str]) -> None:
    if ids:
        db.execute(_DROP_PIECES, {"keys": ids})
        db.execute(_DROP_JOBS, {"keys": ids})


def _remove_events(db: Connection, keys: Sequence[int], before: datetime) -> Counter[str]:
    return Counter(events=db.execute(_DROP_EVENTS, {"keys": keys, "before": before}).rowcount)


def _remove_records(db: Connection, keys: Sequence[str], before: datetime) -> Counter[str]:
    return Counter(idempotency_records=db.execute(_DROP_RECORDS, {"keys": keys, "before": before}).rowcount)
